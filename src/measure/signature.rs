//! Failure signatures: the cause of a Python process's end, read from what it wrote to standard error.
//!
//! Decides nothing about ends that need no text (time limits, contracts' own exit codes): `contract` does. The text may come
//! from a hostile tree, so at most the last 64 KiB are looked at, in any encoding, and what is made of them is only ever a
//! cause and a line for people: it never makes a failed process a measured one.

use crate::outcome::Cause;

/// How much of the end of an output is looked at, in bytes.
pub const TAIL: usize = 64 * 1024;

/// A cause and the line that shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The cause.
    pub cause: Cause,
    /// The line.
    pub line: String,
}

const HEADER: &str = "Traceback (most recent call last):";

/// The last `max` bytes as text, without the line that the cut goes through; what is not UTF-8 is replaced.
#[must_use]
pub fn tail(bytes: &[u8], max: usize) -> String {
    if bytes.len() <= max {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let cut = &bytes[bytes.len() - max..];
    let whole = cut.iter().position(|&b| b == b'\n').map_or(cut, |at| &cut[at + 1..]);
    String::from_utf8_lossy(whole).into_owned()
}

/// The last line that holds more than blank space.
#[must_use]
pub fn last_line(bytes: &[u8]) -> Option<String> {
    let text = tail(bytes, TAIL);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

/// What the last Python traceback of a standard error shows.
///
/// The exception's line is the first one behind the frames that is not indented, so that a message of several lines does not
/// hide it; of chained tracebacks the last counts. Tracebacks that Python itself ignores (`Exception ignored in …`, from
/// `__del__` and `atexit`) are passed over. A prefix before every line (`[rank0]: `) is allowed. Where there is no traceback
/// (a syntax error of the script itself has none) the last line of the form `XxxError: …` counts.
#[must_use]
pub fn of_stderr(stderr: &[u8]) -> Option<Signature> {
    let text = tail(stderr, TAIL);
    let lines: Vec<&str> = text.lines().collect();
    let mut found = None;
    for (i, line) in lines.iter().enumerate() {
        let Some(at) = line.find(HEADER) else { continue };
        if ignored(&lines[..i]) {
            continue;
        }
        if let Some(line) = exception_line(&lines[i + 1..], &line[..at]) {
            found = Some(line);
        }
    }
    let bare = || {
        lines
            .iter()
            .rev()
            .copied()
            .find(|line| class_of(line).is_some_and(|name| name.ends_with("Error") || name.ends_with("Exception")))
    };
    let line = found.or_else(bare)?;
    Some(Signature { cause: cause_of(class_of(line)?, line), line: line.trim().to_owned() })
}

/// What a standard error says of the memory or the GPU, for a process that died by a signal and so left no traceback: a C++
/// `what():  CUDA error: …`, for one.
#[must_use]
pub fn of_abort(stderr: &[u8]) -> Option<Signature> {
    let text = tail(stderr, TAIL);
    text.lines().rev().find_map(|line| Some(Signature { cause: device_cause(line)?, line: line.trim().to_owned() }))
}

/// The cause that an exception's class (dotted or not) and its line stand for.
///
/// `SyntaxError`, `IndentationError` and `TabError` are read as IMPORT_ERROR: in a test they mean that a module of the tree
/// cannot be imported. Subclasses that Python derives from `RuntimeError` (`NotImplementedError`, `RecursionError`) are
/// EXCEPTION, as in the tables of ISO-Bench.
#[must_use]
pub fn cause_of(class: &str, line: &str) -> Cause {
    let last = class.rsplit('.').next().unwrap_or(class);
    match last {
        "OutOfMemoryError" | "MemoryError" => return Cause::Oom,
        "ModuleNotFoundError" | "ImportError" | "SyntaxError" | "IndentationError" | "TabError" => {
            return Cause::ImportError;
        }
        _ => {}
    }
    if let Some(cause) = device_cause(line) {
        return cause;
    }
    match last {
        "TypeError" => Cause::TypeError,
        "AttributeError" => Cause::AttributeError,
        "AssertionError" => Cause::Assertion,
        "RuntimeError" => Cause::RuntimeError,
        "AcceleratorError" => Cause::CudaError,
        _ => Cause::Exception,
    }
}

/// What torch, CUDA's libraries and the C library say where memory or the GPU failed. These texts come under several classes
/// (`RuntimeError`, `OSError`, torch's own), hence the text is looked at.
fn device_cause(line: &str) -> Option<Cause> {
    const OOM: &[&str] = &[
        "CUDA out of memory",
        "HIP out of memory",
        "CUDA error: out of memory",
        "OutOfMemoryError",
        "can't allocate memory",
        "Cannot allocate memory",
        "std::bad_alloc",
    ];
    const GPU: &[&str] = &[
        "CUDA error",
        "CUDA driver",
        "cuDNN error",
        "CUBLAS_STATUS_",
        "CUSPARSE_STATUS_",
        "NCCL error",
        "No CUDA GPUs are available",
        "Found no NVIDIA driver",
    ];
    let holds = |words: &[&str]| words.iter().any(|word| line.contains(word));
    if holds(OOM) {
        Some(Cause::Oom)
    } else if holds(GPU) {
        Some(Cause::CudaError)
    } else {
        None
    }
}

/// Whether the traceback behind these lines is one that did not end the process.
fn ignored(before: &[&str]) -> bool {
    before.iter().rev().find(|line| !line.trim().is_empty()).is_some_and(|line| {
        line.trim_start().starts_with("Exception ignored") || line.contains("Error in atexit._run_exitfuncs")
    })
}

/// The line of the exception behind a traceback's header, without the prefix that header had.
fn exception_line<'a>(body: &[&'a str], prefix: &str) -> Option<&'a str> {
    let line = body
        .iter()
        .map(|line| line.strip_prefix(prefix).unwrap_or(line))
        .find(|line| !line.is_empty() && !line.starts_with([' ', '\t']))?;
    class_of(line).map(|_| line)
}

/// The dotted name of the class in `pkg.XxxError: message` or `XxxError`.
fn class_of(line: &str) -> Option<&str> {
    let name = line.split(':').next().unwrap_or("").trim_end();
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let starts = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    (starts && name.len() <= 200 && name.chars().all(plain)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> (Cause, String) {
        let found = of_stderr(text.as_bytes()).unwrap();
        (found.cause, found.line)
    }

    fn raised(line: &str) -> Cause {
        read(&format!("noise\n{HEADER}\n  File \"t.py\", line 3, in <module>\n    f()\n    ^^^\n{line}\n")).0
    }

    #[test]
    fn classes_become_causes() {
        for (line, cause) in [
            ("ModuleNotFoundError: No module named 'IPython'", Cause::ImportError),
            ("ImportError: cannot import name 'x' from 'y'", Cause::ImportError),
            ("SyntaxError: invalid syntax", Cause::ImportError),
            ("IndentationError: unexpected indent", Cause::ImportError),
            ("TypeError: f() got an unexpected keyword argument", Cause::TypeError),
            ("AttributeError: module 'x' has no attribute 'y'", Cause::AttributeError),
            ("AssertionError", Cause::Assertion),
            ("RuntimeError: expected scalar type Half", Cause::RuntimeError),
            ("RuntimeError: CUDA error: an illegal memory access was encountered", Cause::CudaError),
            ("torch.AcceleratorError: CUDA error: device-side assert triggered", Cause::CudaError),
            ("RuntimeError: No CUDA GPUs are available", Cause::CudaError),
            ("RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB", Cause::Oom),
            ("torch.cuda.OutOfMemoryError: CUDA out of memory.", Cause::Oom),
            ("torch.OutOfMemoryError: CUDA out of memory.", Cause::Oom),
            ("MemoryError", Cause::Oom),
            ("OSError: [Errno 12] Cannot allocate memory", Cause::Oom),
            ("NotImplementedError: \"fp8\" not implemented", Cause::Exception),
            ("zlib.error: Error -3", Cause::Exception),
            ("KeyError: 'nx-loopback'", Cause::Exception),
        ] {
            assert_eq!(raised(line), cause, "{line}");
        }
    }

    #[test]
    fn the_last_traceback_that_ended_the_process_counts() {
        let text = format!(
            "{HEADER}\n  File \"a\"\nKeyError: 'x'\n\nDuring handling of the above exception, another exception occurred:\n\n\
             {HEADER}\n  File \"b\"\nTypeError: first\nsecond line of the message\nValueError: a part of the message\n\
             Exception ignored in: <function F.__del__ at 0x1>\n{HEADER}\n  File \"c\"\nAttributeError: late\n"
        );
        assert_eq!(read(&text), (Cause::TypeError, "TypeError: first".to_owned()));
    }

    #[test]
    fn prefixes_bare_syntax_errors_and_nothing() {
        let text = format!("[rank0]: {HEADER}\n[rank0]:   File \"a\"\n[rank0]: RuntimeError: NCCL error: x\n");
        assert_eq!(read(&text).0, Cause::CudaError);
        let text = "  File \"t.py\", line 1\n    def (:\n        ^\nSyntaxError: invalid syntax\n";
        assert_eq!(read(text), (Cause::ImportError, "SyntaxError: invalid syntax".to_owned()));
        assert_eq!(of_stderr(b""), None);
        assert_eq!(of_stderr(b"/x/y.py:5: RuntimeWarning: Failed to read\nNo module named 'v'\n  from .v\n"), None);
        assert_eq!(of_stderr(format!("{HEADER}\n  File \"a\"\n").as_bytes()), None);
    }

    #[test]
    fn an_abort_shows_its_device() {
        let text = b"terminate called after throwing an instance of 'c10::Error'\n  what():  CUDA error: oh\n";
        assert_eq!(of_abort(text).unwrap().cause, Cause::CudaError);
        assert_eq!(of_abort(b"Segmentation fault"), None);
    }

    #[test]
    fn only_the_tail_is_read_and_any_bytes_may_come() {
        let mut bytes = format!("{HEADER}\n  File \"a\"\nTypeError: old\n").into_bytes();
        bytes.extend(vec![0xff; 2 * TAIL]);
        bytes.extend(b"\nlast\xfe\n");
        assert_eq!(of_stderr(&bytes), None);
        assert_eq!(last_line(&bytes).unwrap(), "last\u{fffd}");
        assert!(tail(&vec![b'x'; 3 * TAIL], TAIL).len() <= TAIL);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), around in 0usize..3) {
            let mut text = vec![];
            for _ in 0..around {
                text.extend_from_slice(HEADER.as_bytes());
                text.extend_from_slice(&bytes);
            }
            text.extend_from_slice(&bytes);
            let _ = (of_stderr(&text), of_abort(&text), last_line(&text), tail(&text, 7));
        }
    }
}
