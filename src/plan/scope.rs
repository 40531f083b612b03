//! What the holes of a template stand for at one point of the axes.
//!
//! Holes that name a place of the attempt (`{work}`, `{in.a}`, `{tool.python}` …) are left as they are: no path of this machine
//! enters a key.

use std::collections::BTreeMap;

use crate::manifest::{Env, Manifest, Place, Spanned, Template};
use crate::plan::{EnvAsk, Facts, HOLE, Missing, Point};

/// One point, and what is known there.
pub struct Scope<'a> {
    /// The manifest.
    pub manifest: &'a Manifest,
    /// The machine.
    pub facts: &'a Facts,
    /// The point.
    pub point: &'a Point,
}

impl Scope<'_> {
    /// Fills what is known when the plan is made; the other holes stay.
    ///
    /// # Errors
    /// If a hole needs what the machine lacks.
    pub fn fill(&self, template: &Spanned<Template>) -> Result<Template, Missing> {
        let mut text = String::new();
        for part in template.value.parts() {
            match part {
                crate::manifest::template::Part::Text(literal) => text.push_str(&escape(literal)),
                crate::manifest::template::Part::Hole(name) => match self.value(name, template.place)? {
                    Some(value) => text.push_str(&escape(&value)),
                    None => {
                        text.push('{');
                        text.push_str(name);
                        text.push('}');
                    }
                },
            }
        }
        Template::parse(&text).map_err(|error| Missing {
            what: format!("`{}` cannot be filled: {error}", template.value),
            hint: "correct the template".into(),
            place: Some(template.place),
            fatal: true,
        })
    }

    /// Fills a template all of whose holes must be known.
    ///
    /// # Errors
    /// If a hole needs what the machine lacks or stands for a place of an attempt.
    pub fn text(&self, template: &Spanned<Template>) -> Result<String, Missing> {
        let filled = self.fill(template)?;
        filled.fill(|name| {
            Err(Missing {
                what: format!("`{{{name}}}` means nothing in `{}`", template.value),
                hint: "here only commit, candidate, sample, var and axis names are known".into(),
                place: Some(template.place),
                fatal: true,
            })
        })
    }

    /// Fills an environment. Of a later one the same name wins.
    ///
    /// # Errors
    /// If a variable that is to be passed and hashed is not set, or a template lacks something.
    pub fn env(&self, envs: &[&Env]) -> Result<EnvAsk, Missing> {
        let mut ask = EnvAsk::default();
        for env in envs {
            for (name, template) in &env.set {
                ask.places.remove(&name.value);
                let filled = self.fill(template)?;
                let holes = || filled.holes();
                let text = if holes().next().is_some() && holes().all(|hole| hole.starts_with(HOLE)) {
                    ask.places.insert(name.value.clone(), filled.clone());
                    filled.to_string()
                } else {
                    self.text(template)?
                };
                ask.hashed.insert(name.value.clone(), text);
            }
            for pass in &env.pass {
                let name = &pass.name.value;
                match self.variable(name, pass.name.place) {
                    Ok(value) if pass.hash => drop(ask.hashed.insert(name.clone(), value)),
                    Ok(value) => drop(ask.unhashed.insert(name.clone(), value)),
                    Err(_) if pass.optional => {}
                    Err(missing) if pass.hash => return Err(missing),
                    Err(_) => ask.unset.push((name.clone(), pass.name.place)),
                }
            }
            ask.secrets.extend(env.secret.iter().cloned());
        }
        Ok(ask)
    }

    fn variable(&self, name: &str, place: Place) -> Result<String, Missing> {
        self.facts.variables.get(name).cloned().ok_or_else(|| Missing {
            what: format!("the variable {name} is not set"),
            hint: format!("export {name}=… before `flow run`"),
            place: Some(place),
            fatal: true,
        })
    }

    fn value(&self, name: &str, place: Place) -> Result<Option<String>, Missing> {
        let pipeline = &self.manifest.pipeline;
        if let Some(variable) = name.strip_prefix("var.") {
            return self.variable(variable, place).map(Some);
        }
        if let Some(field) = name.strip_prefix("commit.") {
            return self.commit(field, place).map(Some);
        }
        if let Some(axis) = pipeline.axes.iter().position(|axis| axis.name.value == name) {
            let value = self.point.own.iter().find(|(own, _)| *own == axis);
            return Ok(value.map(|(axis, value)| pipeline.axes[*axis].values[*value].clone()));
        }
        let candidate = || self.point.candidate.map(|index| &pipeline.candidates[index]);
        Ok(match name {
            "repo.name" => self.point.commit.map(|(repo, _)| pipeline.repos[repo].name.value.to_string()),
            "candidate.name" => candidate().map(|c| c.name.value.to_string()),
            "candidate.model" | "model" => candidate().and_then(|c| c.model.as_ref()).map(|m| m.value.clone()),
            "sample" => self.point.sample.map(|sample| sample.to_string()),
            _ => None,
        })
    }

    fn commit(&self, field: &str, place: Place) -> Result<String, Missing> {
        let unknown = |what: String, hint: &str| Missing { what, hint: hint.into(), place: Some(place), fatal: true };
        let Some((repo, index)) = self.point.commit else {
            return Err(unknown(
                format!("`{{commit.{field}}}` is used where there is no commit"),
                "a step without a commit cannot name one",
            ));
        };
        let commit = &self.manifest.pipeline.repos[repo].commits[index];
        if let Some(value) = commit.columns.get(field) {
            return Ok(value.clone());
        }
        let written = &commit.id.value;
        let fact = || match self.facts.commits.get(&(repo, index)) {
            Some(Ok(fact)) => Ok(fact),
            Some(Err(missing)) => Err(missing.clone()),
            None => Err(unknown(format!("commit {written} is not resolved"), "make the repository reachable")),
        };
        match field {
            "id8" => Ok(written.chars().take(8).collect()),
            "id" if written.len() == 40 => Ok(written.clone()),
            "id" => Ok(fact()?.human.clone()),
            "base" => Ok(fact()?.base.clone()),
            "subject" => Ok(fact()?.subject.clone()),
            "describe" | "version" => {
                // What cannot be resolved is told as that.
                fact()?;
                let described = match self.facts.described.get(&(repo, index)) {
                    Some(described) => described.clone()?,
                    None => return Err(unknown(format!("commit {written} is not described"), "run flow again")),
                };
                if field == "describe" {
                    return Ok(described.text());
                }
                described.version().ok_or_else(|| Missing {
                    what: format!("the tag before commit {written} is no version: {}", described.text()),
                    hint: "say the version in place of `{commit.version}`".into(),
                    place: Some(place),
                    fatal: false,
                })
            }
            _ => Err(unknown(
                format!("commit {} has no column `{field}`", written.get(..8).unwrap_or(written)),
                "give the row this column, or do not name it",
            )),
        }
    }
}

/// The names of the tools in some templates, each once, in order.
#[must_use]
pub fn tools_in(templates: &[Template]) -> Vec<String> {
    let mut names: BTreeMap<&str, ()> = BTreeMap::new();
    for template in templates {
        names.extend(template.holes().filter_map(|hole| hole.strip_prefix("tool.")).map(|name| (name, ())));
    }
    names.into_keys().map(str::to_owned).collect()
}

fn escape(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}
