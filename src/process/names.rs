//! What a program hears that asks for a host: the packets of DNS, read and answered.
//!
//! Knows the names that are allowed and nothing else: it asks nobody. Packets are an agent's: every one is bounded, and what
//! cannot be understood is answered as such or not at all. Only names of one question are answered, as all resolvers ask.

use std::net::Ipv4Addr;

/// The longest packet that is looked at: a question is far below.
pub(super) const LONGEST: usize = 4096;
/// How long an answer may be kept, in seconds: it never changes.
const KEPT: u32 = 60;
/// The longest name, as it stands in a packet.
const NAME: usize = 255;

const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_ANY: u16 = 255;
const CLASS_IN: u16 = 1;

/// What is sent back, in the numbers of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Good = 0,
    Malformed = 1,
    NoSuchName = 3,
    NotDone = 4,
}

/// A name that was asked for and is not allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// The name in lower case, in plain characters.
    pub(super) name: String,
    /// The type of the question: programs ask several of one name.
    pub(super) kind: u16,
}

/// What becomes of a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// What is sent back; nothing to what is no question.
    pub(super) answer: Option<Vec<u8>>,
    /// The name that was refused.
    pub(super) refused: Option<Refused>,
}

/// The end of a name that nobody has: what programs are told to look in for names without a point.
pub(super) const NOWHERE: &str = "invalid";

/// Answers a packet, given the address of each allowed name.
pub(super) fn answer(packet: &[u8], address: impl Fn(&str) -> Option<Ipv4Addr>) -> Said {
    let is_answer = |flags: u8| flags & 0x80 != 0;
    let (Some(header), true) = (packet.first_chunk::<HEADER>(), packet.len() <= LONGEST) else {
        return Said::default();
    };
    if is_answer(header[2]) {
        return Said::default();
    }
    let only = |code| Said { answer: Some(reply(header, code, &[], None)), refused: None };
    if header[2] & 0x78 != 0 {
        return only(Code::NotDone);
    }
    let Some(question) = Question::read(header, &packet[HEADER..]) else { return only(Code::Malformed) };
    let known = match question.name.as_str() {
        "localhost" => Some(Ipv4Addr::LOCALHOST),
        name => address(name),
    };
    let wants = question.class == CLASS_IN && [TYPE_A, TYPE_ANY].contains(&question.kind);
    let code = if known.is_some() { Code::Good } else { Code::NoSuchName };
    let answer = reply(header, code, question.bytes, known.filter(|_| wants));
    // Who asks for the name of an address wants to reach nobody, and in the last resort names are looked for nowhere.
    let idle =
        question.kind == TYPE_PTR || question.name.rsplit('.').next() == Some(NOWHERE) || question.name.is_empty();
    let refused = (known.is_none() && !idle).then_some(Refused { name: question.name, kind: question.kind });
    Said { answer: Some(answer), refused }
}

struct Question<'a> {
    name: String,
    kind: u16,
    class: u16,
    /// As it stands in the packet.
    bytes: &'a [u8],
}

impl<'a> Question<'a> {
    /// The one question of a packet.
    fn read(header: &[u8; HEADER], body: &'a [u8]) -> Option<Self> {
        if header[4..6] != [0, 1] {
            return None;
        }
        let mut name = String::new();
        let mut at = 0;
        loop {
            let length = usize::from(*body.get(at)?);
            if length == 0 {
                break;
            }
            // Longer ones are pointers, which have nothing to point to in a first name.
            let label = body.get(at + 1..at + 1 + length).filter(|_| length < 64)?;
            if !name.is_empty() {
                name.push('.');
            }
            name.extend(label.iter().map(|byte| match byte.to_ascii_lowercase() {
                plain @ (b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') => char::from(plain),
                _ => '?',
            }));
            at += 1 + length;
            if at >= NAME {
                return None;
            }
        }
        let rest: [u8; 4] = body.get(at + 1..at + 5)?.try_into().ok()?;
        let number = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
        Some(Self { name, kind: number(0), class: number(2), bytes: body.get(..at + 5)? })
    }
}

/// An answer: the question again, and an address where there is one.
fn reply(header: &[u8; HEADER], code: Code, question: &[u8], address: Option<Ipv4Addr>) -> Vec<u8> {
    let mut packet = header[..2].to_vec();
    // An answer, and one of authority; recursion as it was wished, and there is some.
    packet.push(0x84 | (header[2] & 1));
    packet.push(0x80 | code as u8);
    packet.extend([0, u8::from(!question.is_empty()), 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    packet.extend(question);
    if let Some(address) = address {
        // The name is that of the question, right behind the header.
        packet.extend([0xc0, 12, 0, 1, 0, 1]);
        packet.extend(KEPT.to_be_bytes());
        packet.extend([0, 4]);
        packet.extend(address.octets());
    }
    packet
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOME: Ipv4Addr = Ipv4Addr::new(127, 83, 0, 1);

    fn packet(name: &str, kind: u16) -> Vec<u8> {
        let mut packet = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|label| !label.is_empty()) {
            packet.push(u8::try_from(label.len()).unwrap());
            packet.extend(label.bytes());
        }
        packet.push(0);
        packet.extend(kind.to_be_bytes());
        packet.extend([0, 1]);
        packet
    }

    fn ask(packet: &[u8]) -> Said {
        answer(packet, |name| (name == "api.example.com").then_some(HOME))
    }

    #[test]
    fn an_allowed_name_has_an_address_and_no_other_kind_of_it() {
        let said = ask(&packet("API.example.com", 1));
        let answer = said.answer.unwrap();
        assert_eq!(answer[..4], [7, 9, 0x85, 0x80]);
        assert!(answer.ends_with(&[0, 4, 127, 83, 0, 1]), "{answer:?}");
        assert_eq!(said.refused, None);
        for kind in [28, 65, 15] {
            let said = ask(&packet("api.example.com", kind));
            assert_eq!(said.answer.unwrap()[3..8], [0x80, 0, 1, 0, 0], "it is there, without such an address");
            assert_eq!(said.refused, None);
        }
        assert!(ask(&packet("localhost", 1)).answer.unwrap().ends_with(&[127, 0, 0, 1]));
    }

    #[test]
    fn another_name_is_not_there_and_is_told() {
        let said = ask(&packet("pypi.org", 28));
        assert_eq!(said.answer.unwrap()[3], 0x83);
        assert_eq!(said.refused, Some(Refused { name: "pypi.org".into(), kind: 28 }));
        let said = ask(&packet("a\u{1b}[2J.b", 1));
        assert_eq!(said.refused.unwrap().name, "a??2j.b", "plain characters");
        for (name, kind) in [("1.0.0.127.in-addr.arpa", 12), ("pypi.org.invalid", 1), ("", 2)] {
            assert_eq!(ask(&packet(name, kind)).refused, None, "{name}");
        }
    }

    #[test]
    fn what_is_no_question_is_not_answered_and_what_is_torn_is_malformed() {
        let whole = packet("pypi.org", 1);
        assert_eq!(ask(&whole[..11]), Said::default());
        for cut in HEADER..whole.len() {
            assert_eq!(ask(&whole[..cut]).answer.unwrap()[3], 0x81, "{cut}");
        }
        let mut answers = whole.clone();
        answers[2] |= 0x80;
        assert_eq!(ask(&answers), Said::default(), "or two of them could talk for ever");
        let mut pointer = whole.clone();
        pointer[HEADER] = 0xc0;
        assert_eq!(ask(&pointer).answer.unwrap()[3], 0x81);
        let long = packet(&["a".repeat(60).as_str(); 5].join("."), 1);
        assert_eq!(ask(&long).answer.unwrap()[3], 0x81);
        let mut update = whole;
        update[2] = 0x28;
        assert_eq!(ask(&update).answer.unwrap()[3], 0x84);
    }

    proptest! {
        #[test]
        fn no_packet_is_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let said = ask(&bytes);
            if let Some(answer) = said.answer {
                prop_assert!(answer.len() <= bytes.len() + 16);
                prop_assert_eq!(&answer[..2], &bytes[..2]);
            }
        }

        #[test]
        fn no_question_is_too_much(
            flags in 0u8..8,
            labels in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..70), 0..8),
            end in proptest::collection::vec(any::<u8>(), 0..6),
        ) {
            let mut bytes = vec![7, 9, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            for label in &labels {
                bytes.push(u8::try_from(label.len()).unwrap());
                bytes.extend(label);
            }
            bytes.push(0);
            bytes.extend(end);
            let said = ask(&bytes);
            let plain = |c: char| c.is_ascii_alphanumeric() || ".-_?".contains(c);
            prop_assert!(said.refused.is_none_or(|refused| refused.name.len() <= NAME && refused.name.chars().all(plain)));
        }
    }
}
