//! An authority of our own, and servers with certificates of it.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::net::TcpStream;
use std::sync::Arc;

/// Signs certificates, and is trusted by those who are given its own.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// With a key nobody has seen.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Its own certificate, as a file of trusted ones has it.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's certificate for a name, good today.
    pub(crate) fn sign(&self, name: &str) -> Encrypts {
        self.issue(CertificateParams::new([name.to_owned()]).expect("a name"))
    }

    /// One that was good once.
    pub(crate) fn sign_expired(&self, name: &str) -> Encrypts {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.issue(params)
    }

    fn issue(&self, params: CertificateParams) -> Encrypts {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a certificate with its key");
        Encrypts(Arc::new(config))
    }
}

/// A server's side of TLS.
#[derive(Clone)]
pub(crate) struct Encrypts(Arc<ServerConfig>);

impl Encrypts {
    /// Takes a connection; nothing when the peer does not like us.
    pub(super) fn accept(
        &self,
        mut stream: TcpStream,
    ) -> Option<StreamOwned<ServerConnection, TcpStream>> {
        let mut session = ServerConnection::new(Arc::clone(&self.0)).expect("a session");
        while session.is_handshaking() {
            session.complete_io(&mut stream).ok()?;
        }
        Some(StreamOwned::new(session, stream))
    }
}
