//! `loadgen verify`: sends, and balances what the server counted against what was sent.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;

use clap::Args;
use serde_json::json;

use crate::admin::Server;
use crate::balance::Balance;
use crate::quantity;
use crate::receiver::{self, Receiver as _};
use crate::send;
use crate::send::Send;

/// What to send, and whom to ask.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) send: Send,

    /// Admin interface of the server. Nobody else may send to it in the meantime.
    #[arg(long, value_name = "HOST:PORT", value_parser = quantity::address)]
    admin: SocketAddr,
}

/// Sends and balances; returns what to print, and whether it balances.
pub(crate) fn run(options: &Options, stop: &AtomicBool) -> anyhow::Result<(String, bool)> {
    let send = &options.send;
    let mut server = Server::connect(send.to, options.admin)?;
    let (meters, counts) = (server.meters()?, server.counts()?);
    let sending = send::run(send, stop)?;
    let report = sending.report;
    receiver::settled(&mut server, &counts, report.account.sent.datagrams)?;
    let counted = server.meters()?.since(&meters)?;
    let balance = Balance::new(report.account.sent, sending.lines_each, counted);
    let text = if send.json {
        format!(
            "{}\n",
            json!({"sent": report.json(), "balance": balance.json()})
        )
    } else {
        format!("{}\n{}", report.table(), balance.table())
    };
    Ok((text, balance.faults().is_empty()))
}
