//! What ends a command badly: a message, a hint and an exit code, drawn by miette.

use std::process::ExitCode;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

/// The end of a command that could not do its part.
#[derive(Debug)]
pub struct Fault {
    code: u8,
    report: Box<dyn Diagnostic + Send + Sync>,
}

#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{message}")]
struct Plain {
    message: String,
    #[help]
    hint: Option<String>,
}

impl Fault {
    /// With an exit code and a message.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, report: Box::new(Plain { message: message.into(), hint: None }) }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// With a hint that says what to do.
    pub fn hint(code: u8, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, report: Box::new(Plain { message: message.into(), hint: Some(hint.into()) }) }
    }

    /// With a report that underlines.
    pub fn drawn(code: u8, report: impl Diagnostic + Send + Sync + 'static) -> Self {
        Self { code, report: Box::new(report) }
    }
}

/// Prints a fault as one plain line and gives its exit code: for a program that another one reads.
pub fn report_plainly(fault: &Fault) -> ExitCode {
    eprintln!("error: {}", fault.report);
    ExitCode::from(fault.code)
}

/// Draws a diagnostic for standard error: as wide as the terminal, in colour only on one.
#[must_use]
pub fn draw(report: &dyn Diagnostic) -> String {
    use std::io::IsTerminal;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let width = crate::cli::output::width_of_messages();
    let mut text = String::new();
    match GraphicalReportHandler::new_themed(theme).with_width(width).render_report(&mut text, report) {
        Ok(()) => text,
        Err(_) => report.to_string(),
    }
}

/// Prints a fault and gives its exit code.
pub fn report(fault: &Fault) -> ExitCode {
    crate::cli::output::say(draw(&*fault.report).trim_end_matches('\n'));
    ExitCode::from(fault.code)
}
