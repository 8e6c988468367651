//! Trunkline: a TCP proxy in which every socket direction is an actor.
//!
//! ```text
//!     client socket                                                backend socket
//!          |                                                             ^
//!     client_reader ────Chunk, Fin────> backend_writer ──────────────────┘
//!     client_writer <───Chunk, Fin───── backend_reader <─────────────────┐
//!          |                                                             |
//!          v                                                       backend socket
//!     client socket
//! ```
//!
//! Four actors carry a connection, each with a socket half or a bounded mailbox of its own; a fifth, `connection`,
//! starts them and decides how it ends. `ARCHITECTURE.md` follows one byte through them.
//!
//! # A proxy in a program
//! ```
//! use futures_lite::future::block_on;
//! use std::io::{Read, Write};
//! use std::net::{TcpListener, TcpStream};
//! use trunkline::{Endpoint, Proxy};
//!
//! // A backend that answers in capitals.
//! let backend = TcpListener::bind("127.0.0.1:0")?;
//! let place = backend.local_addr()?;
//! let served = std::thread::spawn(move || -> std::io::Result<()> {
//!     let (mut socket, _) = backend.accept()?;
//!     let mut text = String::new();
//!     socket.read_to_string(&mut text)?;
//!     socket.write_all(text.to_uppercase().as_bytes())
//! });
//!
//! // The proxy before it; the caller owns when it binds and when it stops.
//! let listen: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
//! let proxy = block_on(Proxy::builder().listen(listen).backend(place).bind())?;
//! let Endpoint::Ip(address) = proxy.endpoints()[0] else { unreachable!("it listens on an IP address") };
//! let (stop, stopped) = async_channel::bounded::<()>(1);
//! let proxy = std::thread::spawn(move || {
//!     block_on(proxy.run(async move { stopped.recv().await.unwrap_or(()) }))
//! });
//!
//! // A client of it.
//! let mut client = TcpStream::connect(address)?;
//! client.write_all(b"hello")?;
//! client.shutdown(std::net::Shutdown::Write)?;
//! let mut answer = String::new();
//! client.read_to_string(&mut answer)?;
//! assert_eq!(answer, "HELLO");
//!
//! drop(stop);
//! let report = proxy.join().expect("no panic");
//! assert_eq!((report.clean, report.aborted), (1, 0));
//! assert_eq!((report.to_backend, report.to_client), (5, 5));
//! # served.join().expect("no panic")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::pin::Pin;

// In reading order. The data path:
mod listener;
mod connection;
mod client_reader;
mod backend_writer;
mod backend_reader;
mod client_writer;
mod tunnel;
// What it is made of:
mod mailbox;
mod actor;
mod socket;
mod gauges;
// What is carried, where somebody looks at it:
pub mod framing;
mod framed;
// Control plane:
mod proxy;
mod pool;
mod trunk;
mod connect;
mod directory;
mod slots;
mod credit;
mod reporter;
// The seam to the world:
mod runtime;
mod net;
// Words:
mod config;
mod endpoint;
mod error;
mod events;
mod ids;
pub mod units;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use config::{Config, Io, Keepalive, Limits};
pub use connect::Connect;
pub use endpoint::Endpoint;
pub use error::Error;
pub use events::{Answers, By, Ended, Events, Listed, Phase, Report};
pub use ids::{ConnId, Side};
pub use pool::PoolConfig;
pub use proxy::{Builder, Handle, Proxy};
pub use runtime::set_threads;
pub use socket::{Chunk, Socket};

/// A future on the heap, as the object-safe traits of this crate return it.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
