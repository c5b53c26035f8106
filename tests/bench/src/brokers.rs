//! The programs that are compared: how each is started on ports of its own, and ended.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, io};

use rustix::process::{Pid, Signal, kill_process};

use crate::clock::{now, pause};
use crate::connection::Target;
use crate::fault::Fault;

/// A program that takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Hbmqtt,
    Mosquitto,
    Rumqttd,
    Relay,
}

/// A kind and where its program is.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
}

/// A started broker. Dropping it ends the process and removes its files.
pub(crate) struct Running {
    child: Child,
    directory: PathBuf,
    pub(crate) plain: Target,
    pub(crate) tls: Target,
    pub(crate) websocket: Target,
}

/// The certificate of the TLS runs and its key, as PEM.
pub(crate) struct Certificate {
    pem: String,
    key_pem: String,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hbmqtt => "hbmqtt",
            Self::Mosquitto => "mosquitto",
            Self::Rumqttd => "rumqttd",
            Self::Relay => "relay",
        }
    }
}

impl Kind {
    /// Not every build of mosquitto has WebSocket, and rumqttd's is left out.
    pub(crate) fn has_websocket(self) -> bool {
        matches!(self, Self::Hbmqtt | Self::Relay)
    }
}

impl Broker {
    /// What the program calls itself.
    pub(crate) fn version(&self) -> String {
        let option = match self.kind {
            Kind::Relay => return "part of this benchmark".to_owned(),
            Kind::Mosquitto => "-h",
            _ => "--version",
        };
        let output = Command::new(&self.program).arg(option).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.ok()
            .and_then(|text| Some(text.lines().next()?.trim().to_owned()))
            .unwrap_or_default()
    }

    /// Starts it on loopback with free ports, and returns when it accepts connections.
    pub(crate) fn start(&self, certificate: &Certificate) -> Result<Running, Fault> {
        self.start_with(certificate, "")
    }

    /// As [`Self::start`], with `more` at the end of its settings.
    pub(crate) fn start_with(
        &self,
        certificate: &Certificate,
        more: &str,
    ) -> Result<Running, Fault> {
        let directory = new_directory()?;
        let [plain, tls, websocket] = free_addresses()?;
        let (pem, key) = (directory.join("certificate.pem"), directory.join("key.pem"));
        fs::write(&pem, &certificate.pem)?;
        fs::write(&key, &certificate.key_pem)?;
        // rumqttd knows the format by the name.
        let config = directory.join(match self.kind {
            Kind::Rumqttd => "config.toml",
            _ => "config",
        });
        let text = match self.kind {
            Kind::Hbmqtt => hbmqtt_config(plain, tls, websocket, &pem, &key),
            Kind::Mosquitto => mosquitto_config(plain, tls, &pem, &key),
            Kind::Rumqttd => rumqttd_config(plain, tls, &pem, &key),
            Kind::Relay => String::new(),
        };
        fs::write(&config, text + more)?;
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Relay => command
                .arg("relay")
                .args([plain, tls, websocket].map(|at| at.to_string()))
                .args([&pem, &key]),
            // As quiet as mosquitto: logging is not measured.
            Kind::Hbmqtt => command.arg("-q").arg("-c").arg(&config),
            _ => command.arg("-c").arg(&config),
        };
        let log = fs::File::create(directory.join("log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn()?;
        let client = certificate.client_config()?;
        let mut running = Running {
            child,
            directory,
            plain: Target::Plain(plain),
            tls: Target::Tls(tls, client),
            websocket: Target::WebSocket(websocket),
        };
        running.wait_for(plain)?;
        running.wait_for(tls)?;
        if self.kind.has_websocket() {
            running.wait_for(websocket)?;
        }
        Ok(running)
    }
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_for(&mut self, address: SocketAddr) -> Result<(), Fault> {
        let deadline = now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            if now() > deadline || self.child.try_wait()?.is_some() {
                let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("does not start: {}", log.trim())).into());
            }
            pause(5);
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let deadline = now() + Duration::from_secs(3);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        while matches!(self.child.try_wait(), Ok(None)) {
            if now() > deadline {
                let _ = self.child.kill();
            }
            pause(2);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Certificate {
    /// A new one for the loopback address.
    pub(crate) fn new() -> Result<Self, Fault> {
        let name = Ipv4Addr::LOCALHOST.to_string();
        let certified = rcgen::generate_simple_self_signed([name]).map_err(io::Error::other)?;
        let (pem, key_pem) = (certified.cert.pem(), certified.signing_key.serialize_pem());
        Ok(Self { pem, key_pem })
    }

    /// Reads the one that a relay is given.
    pub(crate) fn read(pem: &Path, key: &Path) -> io::Result<Self> {
        Ok(Self {
            pem: fs::read_to_string(pem)?,
            key_pem: fs::read_to_string(key)?,
        })
    }

    fn client_config(&self) -> Result<Arc<rustls::ClientConfig>, Fault> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate()?).map_err(io::Error::other)?;
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        Ok(Arc::new(config.with_no_client_auth()))
    }

    pub(crate) fn server_config(&self) -> Result<Arc<rustls::ServerConfig>, Fault> {
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes());
        let key = key.map_err(io::Error::other)?;
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![self.certificate()?], key);
        Ok(Arc::new(config.map_err(io::Error::other)?))
    }

    fn certificate(&self) -> io::Result<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).map_err(io::Error::other)
    }
}

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

fn new_directory() -> io::Result<PathBuf> {
    let base = env::temp_dir();
    for number in 0..1000 {
        let directory = base.join(format!("hbmqtt-bench-{}-{number}", std::process::id()));
        match fs::create_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created.map(|()| directory),
        }
    }
    Err(io::Error::other("no free name for a directory"))
}

/// Addresses that were free a moment ago: not every broker can say which port the system gave it.
fn free_addresses() -> io::Result<[SocketAddr; 3]> {
    let bind = |()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let [first, second, third] = [(); 3].map(bind);
    Ok([
        first?.local_addr()?,
        second?.local_addr()?,
        third?.local_addr()?,
    ])
}

fn hbmqtt_config(
    plain: SocketAddr,
    tls: SocketAddr,
    websocket: SocketAddr,
    pem: &Path,
    key: &Path,
) -> String {
    format!(
        "listeners:\n\
         \x20 default: {{type: tcp, bind: '{plain}'}}\n\
         \x20 tls: {{type: tcp, bind: '{tls}', ssl: on, certfile: '{}', keyfile: '{}'}}\n\
         \x20 websocket: {{type: ws, bind: '{websocket}'}}\n\
         auth: {{allow-anonymous: true}}\n",
        pem.display(),
        key.display()
    )
}

/// Without the limits that would slow it down.
fn mosquitto_config(plain: SocketAddr, tls: SocketAddr, pem: &Path, key: &Path) -> String {
    format!(
        "user root\npersistence false\nallow_anonymous true\nset_tcp_nodelay true\nlog_dest stderr\nlog_type error\n\
         max_queued_messages 0\nmax_inflight_messages 0\n\
         listener {} {}\nlistener {} {}\ncertfile {}\nkeyfile {}\n",
        plain.port(),
        plain.ip(),
        tls.port(),
        tls.ip(),
        pem.display(),
        key.display()
    )
}

fn rumqttd_config(plain: SocketAddr, tls: SocketAddr, pem: &Path, key: &Path) -> String {
    let connections = "connection_timeout_ms = 60000\nmax_payload_size = 1048576\nmax_inflight_count = 500\n\
                       dynamic_filters = true\n";
    format!(
        "id = 0\n[router]\nid = 0\nmax_connections = 10010\nmax_outgoing_packet_count = 200\n\
         max_segment_size = 104857600\nmax_segment_count = 10\n\
         [v4.1]\nname = 'plain'\nlisten = '{plain}'\nnext_connection_delay_ms = 0\n[v4.1.connections]\n{connections}\
         [v4.2]\nname = 'tls'\nlisten = '{tls}'\nnext_connection_delay_ms = 0\n[v4.2.connections]\n{connections}\
         [v4.2.tls]\ncertpath = '{}'\nkeypath = '{}'\n",
        pem.display(),
        key.display()
    )
}
