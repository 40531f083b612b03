//! The text of a patch, put so that libgit2 reads it as git does.
//!
//! Looks at header lines only, and knows nothing of files.

/// A line of the patch's headers that names an absolute path. libgit2 would take it as a relative one.
pub(super) fn absolute(patch: &[u8]) -> Option<&[u8]> {
    let mut lines = patch.split(|b| *b == b'\n').peekable();
    while let Some(line) = lines.next() {
        let plain = line.strip_prefix(b"--- ").zip(lines.peek().and_then(|next| next.strip_prefix(b"+++ ")));
        let named: Vec<&[u8]> = if let Some(rest) = line.strip_prefix(b"diff --git ") {
            // Where the second name begins cannot be told from this line; `+++` or `rename to` repeats it.
            vec![rest]
        } else if let Some((old, new)) = plain {
            vec![old, new]
        } else {
            [&b"rename from "[..], b"rename to ", b"copy from ", b"copy to "]
                .iter()
                .find_map(|verb| line.strip_prefix(*verb))
                .into_iter()
                .collect()
        };
        let is_absolute = |name: &&[u8]| {
            let name = name.strip_prefix(b"\"").unwrap_or(name);
            let name = name.strip_prefix(b"a/").or_else(|| name.strip_prefix(b"b/")).unwrap_or(name);
            name.starts_with(b"/") && !name.starts_with(b"/dev/null")
        };
        if named.iter().any(is_absolute) {
            return Some(line);
        }
    }
    None
}

/// Puts names with blanks into quotes: libgit2 misreads them, though git writes them without.
fn quote_names(lines: &[&[u8]]) -> Vec<u8> {
    const NAMES: [&[u8]; 6] = [b"--- ", b"+++ ", b"rename from ", b"rename to ", b"copy from ", b"copy to "];
    let mut out = Vec::with_capacity(lines.iter().map(|line| line.len() + 8).sum());
    let mut header = false;
    for line in lines {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if let Some(both) = text.strip_prefix(b"diff --git ") {
            header = true;
            // Names that differ are those of a rename, and repeated below: the first ` b/` is as good a place as any.
            let middle = both.len() / 2;
            let same = both.get(..middle).zip(both.get(middle + 1..)).filter(|(a, b)| a.get(2..) == b.get(2..));
            let split = same.or_else(|| {
                let at = both.windows(3).position(|part| part == b" b/")?;
                Some((&both[..at], &both[at + 1..]))
            });
            if let Some((old, new)) =
                split.filter(|_| both[0] != b'"' && both.iter().filter(|b| **b == b' ').count() > 1)
            {
                out.extend_from_slice(&[b"diff --git ", &quoted(old)[..], b" ", &quoted(new), b"\n"].concat());
                continue;
            }
        } else if header {
            header = !text.starts_with(b"@@ -") && text != b"GIT binary patch";
            if let Some((verb, name)) = NAMES.iter().find_map(|verb| Some((*verb, text.strip_prefix(*verb)?))) {
                let name = name.split(|b| *b == b'\t').next().unwrap_or_default();
                if name.contains(&b' ') && name[0] != b'"' {
                    out.extend_from_slice(&[verb, &quoted(name)[..], b"\n"].concat());
                    continue;
                }
            }
        }
        out.extend_from_slice(line);
    }
    out
}

/// A name in quotes, as git writes those that need them.
fn quoted(name: &[u8]) -> Vec<u8> {
    let escaped = name.iter().flat_map(|b| match b {
        b'"' | b'\\' => vec![b'\\', *b],
        _ => vec![*b],
    });
    [b'"'].into_iter().chain(escaped).chain([b'"']).collect()
}

/// Gives the patch of a plain `diff -u` the lines that libgit2 needs to see a patch at all.
pub(super) fn with_git_headers(patch: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = patch.split_inclusive(|b| *b == b'\n').collect();
    if lines.iter().any(|line| line.starts_with(b"diff --git ")) {
        return quote_names(&lines);
    }
    // A time stamp follows a tab.
    let name =
        |line: &[u8]| line[4..].split(|b| matches!(b, b'\t' | b'\r' | b'\n')).next().unwrap_or_default().to_vec();
    let bare = |name: &[u8], side: &[u8]| name.strip_prefix(side).unwrap_or(name).to_vec();
    let mut out = Vec::with_capacity(patch.len() + 256);
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        // Three lines in a row: a removed line of text may begin with `-- ` as well.
        let next = |n: usize, mark: &[u8]| lines.get(at + n).is_some_and(|l| l.starts_with(mark));
        if !(next(0, b"--- ") && next(1, b"+++ ") && next(2, b"@@ -")) {
            out.extend_from_slice(line);
            at += 1;
            continue;
        }
        let (old, new) = (name(line), name(lines[at + 1]));
        let (is_new, is_gone) = (old == b"/dev/null", new == b"/dev/null");
        let path = if is_gone { bare(&old, b"a/") } else { bare(&new, b"b/") };
        let (from, to) = ([b"a/", &path[..]].concat(), [b"b/", &path[..]].concat());
        out.extend_from_slice(&[b"diff --git ", &from[..], b" ", &to, b"\n"].concat());
        if is_new {
            out.extend_from_slice(b"new file mode 100644\n");
        } else if is_gone {
            out.extend_from_slice(b"deleted file mode 100644\n");
        }
        let (from, to) = (if is_new { old } else { from }, if is_gone { new } else { to });
        out.extend_from_slice(&[b"--- ", &from[..], b"\n+++ ", &to, b"\n"].concat());
        at += 2;
    }
    quote_names(&out.split_inclusive(|b| *b == b'\n').collect::<Vec<_>>())
}
