//! The services of a test: each process of it is run together with fresh ones, by flow itself within the process's own sandbox.
//!
//! What a service's failure means is said here; how services are run is `process`'s business.

use std::time::Duration;

use crate::digest::Digest;
use crate::measure::{Arm, Sample};
use crate::outcome::{Cause, Failure};
use crate::process::{self, Exit, Order, PORT_WAIT, Served, Serving, Slip, Trouble, hole};
use crate::redact::Redactor;
use crate::step::context::fault;
use crate::step::test::Session;

/// How much longer than all its limits together such a process may take, before the supervisor ends it.
const SLACK: Duration = Duration::from_secs(30);

/// A process with its services, before it is started.
pub(super) struct Together {
    /// What is started in its place.
    pub(super) argv: Vec<String>,
    /// The order, where there are services.
    pub(super) slip: Option<Slip>,
    /// The limit of it all.
    pub(super) timeout: Option<Duration>,
}

impl Session<'_> {
    /// What a hole stands for that names the port of a service; `own` is the service that asks.
    pub(super) fn port_of(&self, name: &str, own: Option<&str>) -> Option<String> {
        let services = &self.ask.services;
        let name = match name.strip_prefix("service.")? {
            "port" => match (own, services.as_slice()) {
                (Some(own), _) => own,
                (None, [one]) => &one.name,
                (None, _) => return None,
            },
            other => other.strip_suffix(".port")?,
        };
        services.iter().any(|service| service.name == name).then(|| hole(name))
    }

    /// Puts a process together with its services; it alone where it has none.
    pub(super) fn together(&self, arm: Arm, argv: Vec<String>) -> Result<Together, Failure> {
        let (ask, millis) = (self.ask, |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        if ask.services.is_empty() {
            return Ok(Together { argv, slip: None, timeout: ask.timeout });
        }
        let mut services = Vec::new();
        for service in &ask.services {
            let places = |name: &str| self.port_of(name, Some(&service.name)).or_else(|| self.stands_for(arm, name));
            services.push(Serving {
                name: service.name.clone(),
                argv: self.context.fill(&service.argv, &places)?,
                port: service.port,
                ready: service.ready.clone(),
                limit_ms: millis(service.timeout),
            });
        }
        // For whoever looks at the table of processes, and for the sandbox, which must not hide what these name.
        let named = services.iter().flat_map(|service| &service.argv).chain(&argv);
        let shown = named.map(|word| word.replace('\u{1}', ":"));
        let whole = std::iter::once(self.context.machine.flow.display().to_string())
            .chain(["serve", "--"].map(str::to_owned))
            .chain(shown)
            .collect();
        let up: Duration = ask.services.iter().map(|service| service.timeout).sum();
        let order = Order { services, argv, limit_ms: ask.timeout.map(millis) };
        let slip = Slip::new(&order).map_err(|error| fault(&format!("a file in memory: {error}")))?;
        let waits = if ask.services.iter().any(|service| service.port.is_some()) { PORT_WAIT } else { Duration::ZERO };
        let timeout = ask.timeout.map(|timeout| timeout + up + waits + SLACK);
        Ok(Together { argv: whole, slip: Some(slip), timeout })
    }

    /// The streams of the services, as they are kept.
    pub(super) fn service_logs(
        &self,
        served: Option<&Served>,
        redactor: &Redactor,
    ) -> Result<Vec<(String, Option<Digest>)>, Failure> {
        let logs = served.map(|served| &served.logs).into_iter().flatten();
        logs.map(|(name, log)| {
            let stream = if self.ask.services.len() == 1 { "service".to_owned() } else { format!("service {name}") };
            Ok((stream, self.context.keep(&redactor.clean(log.as_bytes()))?))
        })
        .collect()
    }
}

/// The end of the process alone, where it was told: not that of what ran it.
pub(super) fn end_of(end: &mut process::End, served: Option<&Served>) {
    let Some(client) = served.and_then(|served| served.client) else { return };
    end.wall_ms = client.wall_ms;
    end.exit = match (client.timed_out, client.signal, client.code) {
        (true, ..) => Exit::TimedOut { limit_ms: client.wall_ms },
        (false, Some(signal), _) => Exit::Signal(signal),
        (false, None, code) => Exit::Code(code.unwrap_or_default()),
    };
}

/// What a process measured, given how its services did.
///
/// # Errors
/// What says nothing of the tree: that a port is somebody else's, or that the process was not started.
pub(super) fn judged(
    served: Option<&Served>,
    redactor: &Redactor,
    read: impl FnOnce() -> Result<Sample, Failure>,
) -> Result<Result<Sample, Failure>, Failure> {
    let said = |why: &String| String::from_utf8_lossy(&redactor.clean(why.as_bytes())).into_owned();
    match served.and_then(|served| served.trouble.as_ref()) {
        None => Ok(read()),
        Some(Trouble::Startup(why) | Trouble::Late(why)) => Ok(Err(Failure::new(Cause::ServerStartup, &said(why)))),
        Some(Trouble::PortTaken(why)) => Err(Failure::new(Cause::PortTaken, &said(why))),
        Some(Trouble::NotStarted(why)) => Err(Failure::new(Cause::NotStarted, &said(why))),
        // Of a server that is gone whatever was measured is not what was asked for.
        Some(Trouble::Died(why)) => Ok(Err(match read() {
            Err(failure) if !served.and_then(|served| served.client).is_some_and(|client| client.stopped) => {
                let text = format!("{}; the test: {}", said(why), failure.evidence.as_str());
                Failure::new(failure.cause, &text).exit(failure.exit)
            }
            _ => Failure::new(Cause::Exception, &said(why)),
        })),
    }
}

/// Whether a service was not ready in time: with a longer `timeout` it may be.
pub(super) fn is_late(served: Option<&Served>) -> bool {
    matches!(served.and_then(|served| served.trouble.as_ref()), Some(Trouble::Late(_)))
}
