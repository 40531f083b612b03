//! Changes as bytes.

use std::collections::BTreeMap;
use std::fs;

use flow::digest::Digest;
use flow::git::*;
use flow::names::ObjectId;
use proptest::prelude::*;

use crate::world::*;

#[test]
fn only_the_canonical_form_is_read() {
    let w = world();
    let good = w.with(&[("a.txt", "x\n"), ("b", "y\n")]).encode();
    let text = String::from_utf8(good.clone()).unwrap();
    assert!(Changes::decode(&good).is_ok());
    for bad in [
        text.replace("a.txt", "../a"),
        text.replace("a.txt", ".git/a"),
        text.replace("a.txt", "z.txt"),
        text.replace("\"changes\":1", "\"changes\":2"),
        text.replace("},\n", "}, \n"),
        text.replace("\"b\"", "\"%62\""),
        text.replace("\"is\":\"file\"", "\"is\":\"file\",\"more\":1"),
        text.replace("\"b\"", "\"a.txt/b\""),
        String::new(),
        "[]".to_owned(),
    ] {
        assert!(Changes::decode(bad.as_bytes()).is_err(), "{bad}");
    }
}

fn any_name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-c]{1,2}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>().prop_filter("no separator", |b| !matches!(b, 0 | b'/')), 1..6),
    ]
}

fn any_changes() -> impl Strategy<Value = Changes> {
    let path = proptest::collection::vec(any_name(), 1..4).prop_map(|names| names.join(&b'/'));
    let entry = prop_oneof![
        Just(Entry::Gone),
        (any::<[u8; 8]>(), any::<u64>(), any::<bool>()).prop_map(|(seed, size, executable)| Entry::File {
            blob: Digest::of(&seed),
            oid: ObjectId::new(&Digest::of(&seed).hex()[..40]),
            size,
            executable,
        }),
        proptest::collection::vec(1_u8.., 1..20).prop_map(|target| Entry::Link { target }),
    ];
    proptest::collection::vec((path, entry), 0..12).prop_map(|all| {
        let mut kept = BTreeMap::new();
        for (bytes, entry) in all {
            let Ok(path) = TreePath::new(bytes) else { continue };
            let mut more = kept.clone();
            more.insert(path, entry);
            if Changes::new(more.clone()).is_ok() {
                kept = more;
            }
        }
        Changes::new(kept).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes_read_back(changes in any_changes()) {
        let bytes = changes.encode();
        prop_assert_eq!(&Changes::decode(&bytes).unwrap(), &changes);
        prop_assert!(std::str::from_utf8(&bytes).is_ok());
    }

    #[test]
    fn any_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Changes::decode(&bytes);
        let dir = tempfile::tempdir().unwrap();
        let _ = apply_to_dir(&bytes, dir.path());
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
