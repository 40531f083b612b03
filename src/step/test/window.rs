//! The timed window of a process: a script writes a byte to `$FLOW_MARK` when it begins and one when it ends, and flow stamps them
//! with its own clock. What the process says of its time can then be held against a clock that it cannot reach.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// The most marks that are kept. A process that writes more has no window.
const MOST: usize = 4096;

/// Both ends of the pipe.
pub(super) struct Window {
    read: Receiver,
    write: OwnedFd,
    stamps: Vec<Instant>,
    too_many: bool,
}

impl Window {
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        nix::fcntl::fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { read: Receiver::from_owned_fd(read)?, write, stamps: Vec::new(), too_many: false })
    }

    /// The end that the process writes to.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.write.try_clone()
    }

    /// Waits for a future and stamps what is written meanwhile.
    pub(super) async fn during<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let mut marks = [0; 256];
        loop {
            tokio::select! {
                biased;
                read = self.read.read(&mut marks) => match read {
                    Ok(n) if n > 0 => self.stamp(n),
                    // Our own end is open, so that this is no end of the pipe: there is nothing more to be had from it.
                    _ => return future.await,
                },
                done = &mut future => {
                    while let Ok(n @ 1..) = self.read.try_read(&mut marks) {
                        self.stamp(n);
                    }
                    return done;
                }
            }
        }
    }

    fn stamp(&mut self, marks: usize) {
        let room = MOST - self.stamps.len();
        self.too_many |= marks > room;
        self.stamps.extend(std::iter::repeat_n(Instant::now(), marks.min(room)));
    }

    /// How many windows were marked.
    pub(super) fn count(&self) -> usize {
        self.stamps.len() / 2
    }

    /// How long the windows were open in all, in milliseconds; `None` where none was marked, or one was left open.
    pub(super) fn open_ms(&self) -> Option<f64> {
        if self.too_many || self.stamps.is_empty() || self.stamps.len() % 2 == 1 {
            return None;
        }
        let open: Duration = self.stamps.chunks_exact(2).map(|pair| pair[1].duration_since(pair[0])).sum();
        Some(open.as_secs_f64() * 1000.0)
    }
}
