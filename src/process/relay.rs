//! What is behind the doors of [`egress`](super::egress): connections to the hosts themselves, and the answers to names.
//!
//! Runs in the supervisor on a thread of its own, in the machine's network, and ends with it. Bytes are copied both ways and
//! counted, never read. No connection ends because it is silent: a model may think for an hour. A peer that is gone is found by
//! the kernel's own probes.
//!
//! Where a name leads is asked for at each connection. A name may not lead to this machine or into its private networks, where
//! other services trust who reaches them: such an address has to be allowed itself.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use super::egress::{Door, Egress, Host, Opened};
use super::names;
use super::reached::{Log, Reached};

/// Connections at once; the next one waits.
const CONNECTIONS: u32 = 256;
/// Streams of questions for names at once.
const STREAMS: usize = 16;
/// How long a name may take, and each of its addresses.
const PATIENCE: Duration = Duration::from_secs(30);
/// Addresses of a name that are tried.
const ADDRESSES: usize = 8;
/// How long the other side may be silent after the agent has said that it sends nothing more: twice this.
const QUIET: Duration = Duration::from_secs(300);
/// What is read at once of one side.
const PIECE: usize = 16 * 1024;
/// How long what the dead have sent may take to be passed on.
const LAST: Duration = Duration::from_secs(1);
/// Questions that are still taken in at the end.
const LAST_QUESTIONS: usize = 1000;
/// Seconds of silence after which the kernel asks whether a peer is there, between its questions, and their number.
const PROBES: (u32, u32, u32) = (60, 30, 8);

/// The thread, and what it writes down.
pub(super) struct Relay {
    log: Arc<Mutex<Log>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Begins to serve. The thread keeps clear of signals as the one that starts it does.
    ///
    /// # Errors
    /// If no thread can be had.
    pub(super) fn start(
        opened: Vec<Opened>,
        egress: &Egress,
        secrets: impl Iterator<Item = String>,
    ) -> io::Result<Self> {
        let log = Arc::new(Mutex::new(Log::new(&egress.hosts, secrets)));
        let (stop, stopped) = watch::channel(false);
        let (egress, of_thread) = (egress.clone(), log.clone());
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().max_blocking_threads(8).build()?;
        let thread = std::thread::Builder::new().name("relay".into()).spawn(move || {
            let local = LocalSet::new();
            let state = Rc::new(State { egress, log: of_thread, room: Arc::new(Semaphore::new(CONNECTIONS as usize)) });
            local.block_on(&runtime, serve(state, opened, stopped));
            drop(local);
            // A name that is still being asked for must not keep us.
            runtime.shutdown_background();
        })?;
        Ok(Self { log, stop, thread: Some(thread) })
    }

    /// Passes on what the dead have left, ends, and says what was reached.
    pub(super) fn finish(mut self) -> Reached {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // It ends within a second or so; a panic there would have lost only what is not counted yet.
            let _ = thread.join();
        }
        lock(&self.log).reached()
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

struct State {
    egress: Egress,
    log: Arc<Mutex<Log>>,
    room: Arc<Semaphore>,
}

impl State {
    fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }

    fn said(&self, packet: &[u8], addresses: &std::collections::BTreeMap<String, Ipv4Addr>) -> Option<Vec<u8>> {
        let said = names::answer(packet, |name| addresses.get(name).copied());
        if let Some(refused) = said.refused {
            self.log().refused(refused);
        }
        said.answer
    }
}

type Stop = watch::Receiver<bool>;

async fn stopped(stop: &mut Stop) {
    // A sender that is gone has stopped too.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Serves every door until it is stopped, and then what is under way.
async fn serve(state: Rc<State>, opened: Vec<Opened>, mut stop: Stop) {
    for (door, socket) in opened {
        let (state, stop) = (state.clone(), stop.clone());
        tokio::task::spawn_local(async move {
            // Nothing is behind a door that cannot be served, and who calls there hears so.
            let _ = match door {
                Door::Host(host) => take_calls(state, socket, host, stop).await,
                Door::Names => take_questions(state, socket, stop).await,
                Door::NamesByStream => take_streams(state, socket, stop).await,
            };
        });
    }
    stopped(&mut stop).await;
    // Each connection holds one until it ends.
    let _ = timeout(LAST, state.room.acquire_many(CONNECTIONS)).await;
}

fn listener(socket: OwnedFd) -> io::Result<TcpListener> {
    let socket = std::net::TcpListener::from(socket);
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

async fn take_calls(state: Rc<State>, socket: OwnedFd, host: usize, mut stop: Stop) -> io::Result<()> {
    let listener = listener(socket)?;
    loop {
        let call = tokio::select! {
            call = listener.accept() => call,
            () = stopped(&mut stop) => return Ok(()),
        };
        match call {
            Ok((agent, _)) => {
                let Ok(permit) = state.room.clone().acquire_owned().await else { return Ok(()) };
                tokio::task::spawn_local(connection(state.clone(), agent, host, stop.clone(), permit));
            }
            // Out of descriptors, or the caller was gone: another time.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// One connection from its beginning to its end.
async fn connection(state: Rc<State>, agent: TcpStream, host: usize, mut stop: Stop, permit: OwnedSemaphorePermit) {
    let Some(to) = state.egress.hosts.get(host) else { return };
    let found = tokio::select! {
        found = connect(to, &state.egress.hosts) => found,
        () = stopped(&mut stop) => Err("the agent ended first".to_owned()),
    };
    match found {
        Err(why) => {
            state.log().failed(host, why);
            reset(&agent);
        }
        Ok(there) => {
            state.log().connected(host);
            for side in [&agent, &there] {
                let _ = side.set_nodelay(true);
                keep_alive(side);
            }
            pass(&state, agent, there, host, stop).await;
        }
    }
    drop(permit);
}

/// Copies both ways until both have ended, or one is broken, which the other then is too: half an answer must not look whole.
async fn pass(state: &State, mut agent: TcpStream, mut there: TcpStream, host: usize, mut stop: Stop) {
    let came = Cell::new(0_u64);
    let broken = {
        let (agent_reads, agent_writes) = agent.split();
        let (there_reads, there_writes) = there.split();
        let out = copy(agent_reads, there_writes, |bytes| state.log().sent(host, bytes));
        let back = copy(there_reads, agent_writes, |bytes| {
            came.set(came.get() + bytes);
            state.log().came(host, bytes);
        });
        let (mut out, mut back) = (std::pin::pin!(out), std::pin::pin!(back));
        let (mut out_ended, mut back_ended, mut stopping, mut before) = (false, false, false, None);
        loop {
            if out_ended && (back_ended || stopping) {
                break false;
            }
            tokio::select! {
                end = &mut out, if !out_ended => match end {
                    Ok(()) => out_ended = true,
                    Err(_) => break true,
                },
                end = &mut back, if !back_ended => match end {
                    Ok(()) => back_ended = true,
                    Err(_) => break true,
                },
                () = stopped(&mut stop), if !stopping => stopping = true,
                () = sleep(QUIET), if out_ended => {
                    if before.replace(came.get()) == Some(came.get()) {
                        break true;
                    }
                }
            }
        }
    };
    if broken {
        reset(&agent);
        reset(&there);
    }
}

async fn copy<R, W>(mut from: R, mut to: W, count: impl Fn(u64)) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut piece = vec![0; PIECE];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        let mut rest = piece.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            let done = to.write(rest).await?;
            if done == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            count(done as u64);
            rest = rest.get(done..).unwrap_or_default();
        }
    }
}

/// Makes the end of a connection a broken one.
fn reset(stream: &TcpStream) {
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    let _ = setsockopt(&stream.as_fd(), sockopt::Linger, &at_once);
}

fn keep_alive(stream: &TcpStream) {
    let fd = stream.as_fd();
    let (idle, between, number) = PROBES;
    let _ = setsockopt(&fd, sockopt::KeepAlive, &true);
    let _ = setsockopt(&fd, sockopt::TcpKeepIdle, &idle);
    let _ = setsockopt(&fd, sockopt::TcpKeepInterval, &between);
    let _ = setsockopt(&fd, sockopt::TcpKeepCount, &number);
}

/// Connects to a host by one of its addresses.
async fn connect(host: &Host, allowed: &[Host]) -> Result<TcpStream, String> {
    let mut last = None;
    for address in addresses(host, allowed).await? {
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = Some(error.to_string()),
            Err(_) => last = Some(format!("{address} does not answer")),
        }
    }
    Err(last.unwrap_or_else(|| "it has no address".to_owned()))
}

/// The addresses that a host may be reached at.
async fn addresses(host: &Host, allowed: &[Host]) -> Result<Vec<SocketAddr>, String> {
    let port = host.port();
    if let Some(address) = host.address() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    if host.is_localhost() {
        let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        return Ok(both.map(|address| SocketAddr::new(address, port)).to_vec());
    }
    let found = match timeout(PATIENCE, tokio::net::lookup_host((host.name(), port))).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(format!("its name was not found: {error}")),
        Err(_) => return Err("its name was not found in time".to_owned()),
    };
    let mut found: Vec<SocketAddr> = found.take(64).collect();
    // A machine without IPv6 still finds such addresses.
    found.sort_by_key(SocketAddr::is_ipv6);
    let named = |address: IpAddr| allowed.iter().any(|host| host.address() == Some(address) && host.port() == port);
    let (good, inner): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|found| named(found.ip()) || !(is_inner(found.ip()) || is_own(found.ip())));
    match (good.is_empty(), inner.first()) {
        (true, Some(inner)) => {
            Err(format!("it leads to {}, which is not public: allow that address and port as well", inner.ip()))
        }
        _ => Ok(good.into_iter().take(ADDRESSES).collect()),
    }
}

/// Whether an address means another host in each network.
fn is_inner(address: IpAddr) -> bool {
    let inner_four = |ip: Ipv4Addr| {
        let [a, b, c, _] = ip.octets();
        ip.is_private()
            || ip.is_loopback()
            || ip.is_link_local()
            || matches!((a, b, c), (0 | 224.., ..) | (100, 64..=127, _) | (192, 0, 0) | (198, 18 | 19, _))
    };
    match address {
        IpAddr::V4(ip) => inner_four(ip),
        IpAddr::V6(ip) => {
            let parts = ip.segments();
            let four = |high: u16, low: u16| {
                let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
                inner_four(Ipv4Addr::new(a, b, c, d))
            };
            match parts {
                // Addresses of IPv4 in the clothes of IPv6.
                [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => four(high, low),
                [0x2002, high, low, ..] => four(high, low),
                [0x64, 0xff9b, ..] => true,
                [first, ..] => !(0x2000..0x4000).contains(&first),
            }
        }
    }
}

/// Whether an address is this machine's: only those can be listened at, but where the kernel allows every address.
fn is_own(address: IpAddr) -> bool {
    let can = |address: IpAddr| UdpSocket::bind((address, 0)).is_ok();
    can(address) && !can(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)))
}

async fn take_questions(state: Rc<State>, socket: OwnedFd, mut stop: Stop) -> io::Result<()> {
    let socket = UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    let addresses = state.egress.addresses();
    let mut packet = vec![0; names::LONGEST + 1];
    loop {
        tokio::select! {
            taken = socket.recv_from(&mut packet) => {
                // A port that is closed again is told as an error of the next reading.
                let Ok((length, from)) = taken else { continue };
                if let Some(answer) = state.said(packet.get(..length).unwrap_or_default(), &addresses) {
                    let _ = socket.try_send_to(&answer, from);
                }
            }
            () = stopped(&mut stop) => break,
        }
    }
    // What was asked last is on record, too.
    for _ in 0..LAST_QUESTIONS {
        let Ok((length, _)) = socket.try_recv_from(&mut packet) else { break };
        state.said(packet.get(..length).unwrap_or_default(), &addresses);
    }
    Ok(())
}

async fn take_streams(state: Rc<State>, socket: OwnedFd, mut stop: Stop) -> io::Result<()> {
    let listener = listener(socket)?;
    let room = Arc::new(Semaphore::new(STREAMS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return Ok(()) };
        let call = tokio::select! {
            call = listener.accept() => call,
            () = stopped(&mut stop) => return Ok(()),
        };
        let Ok((stream, _)) = call else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let state = state.clone();
        tokio::task::spawn_local(async move {
            let _ = timeout(PATIENCE, answer_stream(&state, stream)).await;
            drop(permit);
        });
    }
}

/// Answers questions that come with their length before them.
async fn answer_stream(state: &State, mut stream: TcpStream) -> io::Result<()> {
    let addresses = state.egress.addresses();
    loop {
        let length = usize::from(stream.read_u16().await?);
        if length > names::LONGEST {
            return Ok(());
        }
        let mut packet = vec![0; length];
        stream.read_exact(&mut packet).await?;
        let Some(answer) = state.said(&packet, &addresses) else { return Ok(()) };
        let mut whole = u16::try_from(answer.len()).unwrap_or_default().to_be_bytes().to_vec();
        whole.extend(answer);
        stream.write_all(&whole).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_another_host_in_each_network_is_inner() {
        let is_inner = |text: &str| is_inner(text.parse().unwrap());
        for inner in [
            "127.0.0.1",
            "127.83.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
        ] {
            assert!(is_inner(inner), "{inner}");
        }
        for outer in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"] {
            assert!(!is_inner(outer), "{outer}");
        }
    }

    #[test]
    fn a_name_may_lead_to_this_machine_only_where_the_address_is_allowed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Every machine has a name, and it leads to itself.
        let name = nix::unistd::gethostname().unwrap().into_string().unwrap();
        let Ok(host) = format!("{name}:4000").parse::<Host>() else { return };
        let Some(Ok(found)) = runtime.block_on(async {
            let found = tokio::net::lookup_host((host.name(), 4000)).await.ok()?.next()?;
            Some(addresses(&host, &[format!("{}:4000", found.ip()).parse().ok()?]).await)
        }) else {
            eprintln!("skipped: this machine's name leads nowhere");
            return;
        };
        assert!(!found.is_empty());
        let refused = runtime.block_on(addresses(&host, std::slice::from_ref(&host))).unwrap_err();
        assert!(refused.contains("which is not public"), "{refused}");
    }

    #[test]
    fn an_address_of_this_machine_is_its_own() {
        assert!(is_own(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(!is_own(IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1))));
    }
}
