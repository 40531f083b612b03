//! Sockets that belong to no network: a machine's way to what it runs on (vsock), radio and the like. A network of its own does
//! not hold them, so who has one for the sake of some hosts may not open them.
//!
//! A filter of system calls, for good and for all that is executed. What it looks at are numbers alone.

use std::io;

/// The families that a network of its own holds, or that leave the machine by no way: files, IPv4, IPv6, netlink, raw packets
/// (which need a right that is given up) and the kernel's ciphers.
const HELD: [libc::c_int; 6] =
    [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_ALG];

#[cfg(target_arch = "x86_64")]
const NATIVE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const NATIVE: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const NATIVE: Option<u32> = None;

/// The bit by which a call of 64 bits is made with pointers of 32, on some.
const SHORT_POINTERS: u32 = 0x4000_0000;
/// `io_uring_setup`, by which sockets can be opened without the call for it. Its number is the same everywhere.
const RING: u32 = 425;
/// The calls for sockets of programs for 32 bits: `socketcall`, and `socket` on x86 and on ARM.
const OF_32_BITS: [u32; 3] = [102, 359, 281];

/// Gives up all other families. Needs that no new privileges can be had.
///
/// # Errors
/// If this kernel has no such filters, or it is not known how its calls are numbered.
pub(super) fn only_held() -> io::Result<()> {
    let Some(native) = NATIVE else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "calls of this kind of machine cannot be filtered"));
    };
    let mut program = filter(native);
    let length = u16::try_from(program.len()).unwrap_or(u16::MAX);
    let whole = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the structure and the program that it points to live until the call returns, which copies them.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const whole) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn filter(native: u32) -> Vec<libc::sock_filter> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IS: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    // Of the structure that a filter sees: number, kind of machine, and the low half of the first argument.
    const NUMBER: u32 = 0;
    const MACHINE: u32 = 4;
    const FIRST: u32 = 16;
    let refuse = |error: libc::c_int| libc::SECCOMP_RET_ERRNO | error.cast_unsigned();
    let step = |code: u32, k: u32, yes: u8, no: u8| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: yes,
        jf: no,
        k,
    };
    let held = u8::try_from(HELD.len()).unwrap_or_default();
    let others = u8::try_from(OF_32_BITS.len()).unwrap_or_default();
    let socket = u32::try_from(libc::SYS_socket).unwrap_or_default();
    let mut program = vec![
        step(LOAD, MACHINE, 0, 0),
        // The two long ways are measured at the end: to the calls of other machines,
        step(IS, native, 0, 0),
        step(LOAD, NUMBER, 0, 0),
        step(AND, !SHORT_POINTERS, 0, 0),
        step(IS, RING, 0, 1),
        step(RETURN, refuse(libc::ENOSYS), 0, 0),
        // and, from what opens no socket, to where all is allowed.
        step(IS, socket, 0, 0),
        step(LOAD, FIRST, 0, 0),
    ];
    for (n, family) in (0_u8..).zip(HELD) {
        program.push(step(IS, family.cast_unsigned(), held - n, 0));
    }
    program.push(step(RETURN, refuse(libc::EAFNOSUPPORT), 0, 0));
    let allow = program.len();
    program.push(step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    let other = program.len();
    program.push(step(LOAD, NUMBER, 0, 0));
    for (n, call) in (0_u8..).zip(OF_32_BITS.into_iter().chain([RING])) {
        program.push(step(IS, call, others + 1 - n, 0));
    }
    program.push(step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    program.push(step(RETURN, refuse(libc::ENOSYS), 0, 0));
    // The distances, from where each jump stands.
    program[1].jf = u8::try_from(other - 2).unwrap_or_default();
    program[6].jf = u8::try_from(allow - 7).unwrap_or_default();
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter says of a call.
    fn says(native: u32, machine: u32, number: u32, first: u32) -> u32 {
        let program = filter(native);
        let (mut at, mut held) = (0, 0);
        loop {
            let step = &program[at];
            let code = u32::from(step.code);
            at += 1;
            if code == libc::BPF_RET | libc::BPF_K {
                return step.k;
            } else if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
                held = match step.k {
                    0 => number,
                    4 => machine,
                    _ => first,
                };
            } else if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K {
                held &= step.k;
            } else {
                at += usize::from(if held == step.k { step.jt } else { step.jf });
            }
        }
    }

    #[test]
    fn only_what_a_network_holds_can_be_opened_by_any_call() {
        const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
        let refuse = |error: libc::c_int| libc::SECCOMP_RET_ERRNO | error.cast_unsigned();
        let socket = u32::try_from(libc::SYS_socket).unwrap();
        let (native, other) = (0xc000_003e, 0x4000_0003);
        for family in HELD {
            assert_eq!(says(native, native, socket, family.cast_unsigned()), ALLOW, "{family}");
        }
        for family in [libc::AF_VSOCK, libc::AF_BLUETOOTH, libc::AF_TIPC, 0, 3] {
            assert_eq!(says(native, native, socket, family.cast_unsigned()), refuse(libc::EAFNOSUPPORT), "{family}");
            let short = socket | SHORT_POINTERS;
            assert_eq!(says(native, native, short, family.cast_unsigned()), refuse(libc::EAFNOSUPPORT), "{family}");
        }
        assert_eq!(says(native, native, RING, 0), refuse(libc::ENOSYS));
        for call in [0, 1, 59, 231, 426] {
            assert_eq!(says(native, native, call, 40), ALLOW, "{call}");
        }
        for call in OF_32_BITS.into_iter().chain([RING]) {
            assert_eq!(says(native, other, call, 40), refuse(libc::ENOSYS), "{call}");
        }
        assert_eq!(says(native, other, 4, 40), ALLOW);
    }
}
