//! The devices that `slots` declares: GPUs that answer, cores that this process may use.

use std::path::Path;

use super::ask::{Ask, Found};
use super::{Finding, Level};
use crate::manifest::Slot;
use crate::plan::Missing;
use crate::process::own_cores;
use crate::run::prepare::gpu_rows;

/// Looks at the devices of the manifest's slots; without a manifest, at what there is.
pub(super) async fn examine(ask: Ask) -> Found {
    let question = ask.question.clone();
    let Some(manifest) = &question.manifest else {
        let said = gpu_rows(&question.machine, ask.left()).await;
        let what = match said {
            Ok(rows) if !rows.is_empty() => rows.iter().map(|[index, _, model]| format!("{index}: {model}")).collect(),
            _ => vec!["none answers nvidia-smi".to_owned()],
        };
        let cores = format!("{} may be used", own_cores().len());
        let lines = vec![Finding::ok("gpu", "", what.join(", ")), Finding::ok("cores", "", cores)];
        return Found { lines, ..Found::default() };
    };
    let mut found = Found::default();
    let slots = &manifest.pipeline.slots;
    let gpus: Vec<&Slot> = slots.iter().filter(|slot| slot.kind.value.as_str() == "gpu").collect();
    if let Some(first) = gpus.first() {
        gpu(&ask, &gpus, &mut found).await;
        for line in &mut found.lines {
            if line.at.is_none() && line.level != Level::Ok {
                *line = line.clone().at(manifest, first.name.place);
            }
        }
    }
    if slots.iter().any(|slot| slot.kind.value.as_str() != "gpu") {
        for slot in slots.iter().filter(|slot| slot.kind.value.as_str() != "gpu") {
            found.facts.devices.insert(slot.kind.value.to_string(), Ok(String::new()));
        }
    }
    let own = own_cores();
    for slot in slots.iter().filter(|slot| !slot.cores.is_empty()) {
        let subject = format!("{} {}", slot.kind.value, slot.name.value);
        let cores = ranges(&slot.cores);
        let line = match slot.cores.iter().find(|core| !own.contains(core)) {
            _ if own.is_empty() => {
                Finding::bad(Level::Unknown, "cores", subject, "the kernel does not say which there are", "try a run")
            }
            None => Finding::ok("cores", subject, cores),
            Some(core) => Finding::bad(
                Level::Fail,
                "cores",
                subject,
                format!("core {core} is not there for flow, which may use {}", ranges(&own)),
                "correct `cores=` of the slot, or start flow where it may use them",
            )
            .at(manifest, slot.name.place),
        };
        found.lines.push(line);
    }
    found
}

async fn gpu(ask: &Ask, gpus: &[&Slot], found: &mut Found) {
    let fix = "run on a machine with the GPUs that `slots` declares, or correct `slots`";
    let missing = |what: &str| Missing { what: what.to_owned(), hint: fix.into(), place: None, fatal: true };
    let rows = match gpu_rows(&ask.question.machine, ask.left()).await {
        Ok(rows) => rows,
        Err(why) => {
            let why = if ask.late() { ask.silent() } else { why };
            let what = format!("no GPU answers: nvidia-smi: {why}");
            found.facts.devices.insert("gpu".into(), Err(missing(&what)));
            found.facts.said.insert(what.clone());
            let names: Vec<&str> = gpus.iter().map(|slot| slot.name.value.as_str()).collect();
            found.lines.push(Finding::bad(ask.level(Level::Fail), "gpu", names.join(", "), what, fix));
            return;
        }
    };
    let busy = busy(ask).await;
    let mut models: Vec<&str> = Vec::new();
    let mut fact = Ok(String::new());
    for slot in gpus {
        let name = &slot.name.value;
        let Some([_, uuid, model]) = rows.iter().find(|[index, uuid, _]| index == name || uuid == name) else {
            let what = format!("there is no GPU {name} on this machine, which has {}", rows.len());
            found.facts.said.insert(what.clone());
            fact = Err(missing(&what));
            found.lines.push(Finding::bad(Level::Fail, "gpu", name, what, fix));
            continue;
        };
        models.push(model);
        let others = busy.iter().filter(|line| line.starts_with(uuid.as_str())).count();
        found.lines.push(match others {
            0 => Finding::ok("gpu", name, format!("{model}, {uuid}")),
            _ => Finding::bad(
                Level::Warn,
                "gpu",
                name,
                format!("{model} is used by {others} processes already: what is measured on it is not alone"),
                "end them, see `nvidia-smi`",
            ),
        });
    }
    models.dedup();
    if models.len() > 1 {
        let what = format!("the GPUs of `slots` are of different models: {}", models.join(", "));
        found.facts.said.insert(what.clone());
        fact = Err(missing(&what));
        let same = "declare slots of one model; the others belong into a manifest of their own";
        found.lines.push(Finding::bad(Level::Fail, "gpu", "", what, same));
    }
    found.facts.devices.insert("gpu".into(), fact);
}

/// The processes that compute on GPUs now, a line each, the GPU's UUID first. None if that is not told.
async fn busy(ask: &Ask) -> Vec<String> {
    let argv = ["nvidia-smi", "--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader"].map(str::to_owned);
    let said = ask.answer(&argv, &ask.question.machine.variables, Path::new("/")).await.unwrap_or_default();
    String::from_utf8_lossy(&said).lines().map(|line| line.trim().to_owned()).collect()
}

/// Cores as a manifest writes them: `0-3,8`.
fn ranges(cores: &[u32]) -> String {
    let mut cores = cores.to_vec();
    cores.sort_unstable();
    let mut text: Vec<String> = Vec::new();
    let mut rest = cores.as_slice();
    while let Some((&first, _)) = rest.split_first() {
        let run = rest.iter().zip(first..).take_while(|(core, wanted)| **core == *wanted).count();
        let last = rest[run - 1];
        text.push(if last == first { first.to_string() } else { format!("{first}-{last}") });
        rest = &rest[run..];
    }
    text.join(",")
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn cores_read_as_they_are_written() {
        assert_eq!(ranges(&[0, 1, 2, 3, 8]), "0-3,8");
        assert_eq!(ranges(&[5, 4, 2]), "2,4-5");
        assert_eq!(ranges(&[]), "");
    }
}
