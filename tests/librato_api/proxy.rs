//! A proxy between a server and the API.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;

/// A proxy that does one thing with every connection.
#[derive(Clone, Copy)]
pub(crate) enum Manner {
    Connects,
    Refuses(&'static str),
    Hangs,
    Leaves,
}

/// Where it is, and the head of every request it gets.
pub(crate) fn proxy(manner: Manner) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the proxy");
    proxy_on(listener, manner)
}

/// The same on a port that is bound already.
pub(crate) fn proxy_on(listener: TcpListener, manner: Manner) -> (String, Receiver<String>) {
    let address = listener.local_addr().expect("it is bound").to_string();
    let (tell, heads) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let tell = tell.clone();
            thread::spawn(move || serve_proxy(stream, manner, &tell));
        }
    });
    (address, heads)
}

fn serve_proxy(mut stream: TcpStream, manner: Manner, tell: &mpsc::Sender<String>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let target = head.split(' ').nth(1)?.replace("localhost", "127.0.0.1");
    let _ = tell.send(head);
    match manner {
        Manner::Connects => {
            let server = TcpStream::connect(target).ok()?;
            // In pieces, and with more in it than is needed.
            stream.write_all(b"HTTP/1.1 200 Connection ").ok()?;
            stream
                .write_all(b"established\r\nProxy-Agent: x\r\n\r\n")
                .ok()?;
            let (mut from, mut to) = (stream.try_clone().ok()?, server.try_clone().ok()?);
            thread::spawn(move || io::copy(&mut from, &mut to));
            io::copy(&mut { server }, &mut stream).ok()?;
            stream.shutdown(std::net::Shutdown::Both).ok()?;
        }
        Manner::Refuses(answer) => stream.write_all(answer.as_bytes()).ok()?,
        Manner::Hangs => drop(stream.read_to_end(&mut Vec::new())),
        Manner::Leaves => {}
    }
    Some(())
}
