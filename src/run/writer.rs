//! The one thread that writes a run's records: what queued while it wrote becomes durable together.
//!
//! Nothing is told to anybody before the line that says it is on the disk.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedSender;

use crate::attempt::Line;
use crate::store::{RecordWriter, StoreError};

/// A line to write, and what to say when it is durable.
struct Job<T> {
    line: Line,
    token: T,
}

/// The writer's handle. Dropping it ends the thread after all that was sent is durable.
pub struct Writer<T: Send + 'static> {
    jobs: Option<mpsc::Sender<Job<T>>>,
    thread: Option<JoinHandle<()>>,
}

/// What the writer says: the tokens of lines that are durable, or why they are not.
pub type Written<T> = Result<Vec<T>, (Arc<StoreError>, Vec<T>)>;

impl<T: Send + 'static> Writer<T> {
    /// Starts the thread. It answers on `done`.
    #[must_use]
    pub fn start(records: RecordWriter, done: UnboundedSender<Written<T>>) -> Self {
        let (jobs, queue) = mpsc::channel::<Job<T>>();
        let thread = std::thread::spawn(move || {
            while let Ok(first) = queue.recv() {
                let mut batch = vec![first];
                batch.extend(queue.try_iter());
                let result = write(&records, &batch);
                let tokens = batch.into_iter().map(|job| job.token).collect();
                let answer = match result {
                    Ok(()) => Ok(tokens),
                    Err(error) => Err((Arc::new(error), tokens)),
                };
                if done.send(answer).is_err() {
                    // Nobody listens any more, but what was sent is still worth keeping.
                }
            }
        });
        Self { jobs: Some(jobs), thread: Some(thread) }
    }

    /// Queues a line.
    pub fn send(&self, line: Line, token: T) {
        if let Some(jobs) = &self.jobs {
            // The thread only ends when this sender is dropped.
            let _ = jobs.send(Job { line, token });
        }
    }
}

impl<T: Send + 'static> Drop for Writer<T> {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write<T>(records: &RecordWriter, batch: &[Job<T>]) -> Result<(), StoreError> {
    for job in batch {
        records.append(&job.line)?;
    }
    records.commit().map(|_| ())
}
