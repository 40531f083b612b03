//! What keeps the processes of one child from those of all others that run as the same user: theirs are not read, by `/proc` or
//! otherwise, and not sent signals, and nothing is left for them in the kernel's keyrings.
//!
//! A domain of Landlock, which every process that the child starts is in, and a filter of system calls. Others can still be
//! counted and their command lines read. It needs that no new privileges can be had.

use std::io;

/// From this version of Landlock on signals are held; before it, what is read of others alone.
const SIGNALS: i64 = 6;
/// The first version in which a file may be moved to another folder under a rule.
const MOVES: i64 = 2;

const MAKE_CHAR: u64 = 1 << 6;
const REFER: u64 = 1 << 13;
const SCOPE_ABSTRACT_SOCKETS: u64 = 1 << 0;
const SCOPE_SIGNALS: u64 = 1 << 1;
const OF_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

/// `add_key`, `request_key` and `keyctl`, and the same of programs for 32 bits.
const KEYRINGS: [libc::c_long; 3] = [libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl];
#[cfg(target_arch = "x86_64")]
const FOR_64_AND_32: (u32, [u32; 3]) = (0xc000_003e, [286, 287, 288]);
#[cfg(not(target_arch = "x86_64"))]
const FOR_64_AND_32: (u32, [u32; 3]) = (0xc000_00b7, [309, 310, 311]);
/// The bit by which a call of 64 bits is made with pointers of 32, on some.
const SHORT_POINTERS: u32 = 0x4000_0000;

#[repr(C)]
struct Ruleset {
    files: u64,
    net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// Why this kernel does not keep a child wholly apart; `None` where it does.
#[must_use]
pub(super) fn lacking() -> Option<&'static str> {
    match version() {
        SIGNALS.. => None,
        MOVES.. => {
            Some("this kernel keeps others from being read, not from being sent signals: it is older than Linux 6.12")
        }
        _ => Some("this kernel has no Landlock that could hold it"),
    }
}

fn version() -> i64 {
    // SAFETY: without a structure and with this flag the call only answers.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<Ruleset>(), 0, OF_VERSION) }
}

/// Enters a domain of its own, as far as this kernel has such, and gives the keyrings up.
///
/// # Errors
/// If the kernel that has them refuses.
pub(super) fn enter() -> io::Result<()> {
    let version = version();
    if version >= MOVES {
        domain(version)?;
    }
    give_keyrings_up()
}

fn domain(version: i64) -> io::Result<()> {
    let check = |done: libc::c_long| if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) };
    let whole = version >= SIGNALS;
    // A domain has to hold something: where signals cannot be, moves and device files, which a rule then allows everywhere.
    let set = match whole {
        true => Ruleset { files: 0, net: 0, scoped: SCOPE_SIGNALS | SCOPE_ABSTRACT_SOCKETS },
        false => Ruleset { files: REFER | MAKE_CHAR, net: 0, scoped: 0 },
    };
    let size = if whole { size_of::<Ruleset>() } else { size_of::<u64>() };
    // SAFETY: plain system calls on locals of the layout that the kernel documents; the descriptors are closed by the execution.
    unsafe {
        let rules = check(libc::syscall(libc::SYS_landlock_create_ruleset, &raw const set, size, 0))?;
        if !whole {
            let root = libc::open(c"/".as_ptr(), libc::O_PATH | libc::O_CLOEXEC);
            check(root.into())?;
            let rule = PathBeneath { allowed: REFER | MAKE_CHAR, parent: root };
            check(libc::syscall(libc::SYS_landlock_add_rule, rules, RULE_PATH_BENEATH, &raw const rule, 0))?;
        }
        check(libc::syscall(libc::SYS_landlock_restrict_self, rules, 0)).map(|_| ())
    }
}

fn give_keyrings_up() -> io::Result<()> {
    let mut program = filter();
    let length = u16::try_from(program.len()).unwrap_or(u16::MAX);
    let whole = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the structure and the program that it points to live until the call returns, which copies them.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const whole) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn filter() -> Vec<libc::sock_filter> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    // Of the structure that a filter sees: the number of the call, and the kind of machine.
    const NUMBER: u32 = 0;
    const MACHINE: u32 = 4;
    let step = |code: u32, k: u32, yes: u8, no: u8| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: yes,
        jf: no,
        k,
    };
    let (native, short) = FOR_64_AND_32;
    let own = KEYRINGS.map(|call| u32::try_from(call).unwrap_or_default());
    vec![
        step(LOAD, MACHINE, 0, 0),
        step(IS, native, 0, 5),
        step(LOAD, NUMBER, 0, 0),
        step(AND, !SHORT_POINTERS, 0, 0),
        step(IS, own[0], 7, 0),
        step(IS, own[1], 6, 0),
        step(IS, own[2], 5, 4),
        step(LOAD, NUMBER, 0, 0),
        step(IS, short[0], 3, 0),
        step(IS, short[1], 2, 0),
        step(IS, short[2], 1, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned(), 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter says of a call.
    fn says(machine: u32, number: u32) -> u32 {
        let program = filter();
        let (mut at, mut held) = (0, 0);
        loop {
            let step = &program[at];
            let code = u32::from(step.code);
            at += 1;
            match code {
                code if code == libc::BPF_RET | libc::BPF_K => return step.k,
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    held = if step.k == 0 { number } else { machine };
                }
                code if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => held &= step.k,
                _ => at += usize::from(if held == step.k { step.jt } else { step.jf }),
            }
        }
    }

    #[test]
    fn the_keyrings_are_given_up_and_nothing_else() {
        let refused = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
        let (native, short) = FOR_64_AND_32;
        for call in KEYRINGS.map(|call| u32::try_from(call).unwrap()) {
            assert_eq!(says(native, call), refused);
            assert_eq!(says(native, call | SHORT_POINTERS), refused);
            assert_eq!(says(native, call - 3), libc::SECCOMP_RET_ALLOW);
            assert_eq!(says(0x4000_0003, call), libc::SECCOMP_RET_ALLOW, "another call there");
        }
        for call in short {
            assert_eq!(says(0x4000_0003, call), refused);
            assert_eq!(says(native, call), libc::SECCOMP_RET_ALLOW);
        }
    }
}
