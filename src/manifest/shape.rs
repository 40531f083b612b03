//! Checks nodes against the grammar: names, arguments, properties, types, repetitions.
//!
//! Reports everything that is wrong and goes on. It knows nothing of what the nodes mean together.

use super::Place;
use super::flaw::{Draft, Report, list, nearest};
use super::grammar::{Arg, Form, In, LATER, Many, Ty, forms};
use super::node::{Node, Value};
use super::types::typed;
use crate::names::check_name;

/// Checks nodes that stand beside each other, and all below them. A step's children are not entered: what they may be
/// depends on its kind.
pub(super) fn check<'a>(nodes: impl Iterator<Item = Node<'a>>, at: In, report: &Report) {
    let mut seen: Vec<Node<'a>> = Vec::new();
    for node in nodes {
        let Some(form) = at.form(node.name()) else {
            unknown_node(node, at, report);
            continue;
        };
        if !form.repeat {
            if let Some(first) = seen.iter().find(|other| other.name() == form.name) {
                report.add(
                    Draft::new("repeated-node", node.place(), format!("`{}` stands here twice", form.name))
                        .label("again here")
                        .other(first.place(), "first here")
                        .help(format!("keep one `{}`: {}", form.name, form.example)),
                );
                continue;
            }
            seen.push(node);
        }
        one(node, form, report);
    }
}

/// Checks one node whose form is known.
pub(super) fn one(node: Node<'_>, form: &'static Form, report: &Report) {
    if let Some(ty) = node.raw.ty() {
        annotation(node.scope.place(ty.span()), ty.value(), report);
    }
    // What is wrong with an unknown property is its name, whatever stands before its value.
    let known = |key: &str| form.open.is_some() || form.props.iter().any(|prop| prop.name == key);
    for value in node.entries().filter(|value| value.key().is_none_or(known)) {
        let place = value.place();
        if let Some(ty) = value.entry.ty().filter(|_| !takes_money(value, node, form)) {
            annotation(place, ty.value(), report);
        }
    }
    arguments(node, form, report);
    properties(node, form, report);
    if form.inner == In::AnyStep {
        return;
    }
    if form.inner == In::Nowhere {
        if let Some(child) = node.children().next() {
            report.add(
                Draft::new("no-children", child.place(), format!("`{}` has no children", form.name))
                    .label("not allowed here")
                    .help(format!("it is written: {}", form.example)),
            );
        }
        return;
    }
    check(node.children(), form.inner, report);
    for name in form.must {
        if node.child(name).is_none() {
            let example = form.inner.form(name).map_or("", |form| form.example);
            report.add(
                Draft::new("missing-node", node.place(), format!("`{}` has no `{name}`", form.name))
                    .label(format!("needs a `{name}`"))
                    .help(format!("add one, such as: {example}")),
            );
        }
    }
}

/// Whether a value stands where an amount of money is read, with its currency in front.
fn takes_money(value: Value<'_>, node: Node<'_>, form: &Form) -> bool {
    let ty = match value.key() {
        Some(key) => form.props.iter().find(|prop| prop.name == key).map(|prop| prop.ty),
        None => {
            let at = node.args().position(|arg| std::ptr::eq(arg.entry, value.entry));
            at.and_then(|at| form.args.get(at)).map(|arg| arg.ty)
        }
    };
    ty == Some(Ty::Money)
}

fn annotation(place: Place, ty: &str, report: &Report) {
    report.add(
        Draft::new("annotation", place, format!("nothing takes the annotation `({ty})` here"))
            .label("annotated")
            .help(format!("leave `({ty})` out")),
    );
}

fn unknown_node(node: Node<'_>, at: In, report: &Report) {
    let name = node.name();
    let here: Vec<&str> = at.forms().map(|form| form.name).collect();
    let elsewhere: Vec<&Form> = forms().filter(|form| form.name == name).collect();
    let help = if let Some(near) = nearest(name, here.iter().copied()).filter(|_| elsewhere.is_empty()) {
        format!("did you mean `{near}`?")
    } else if let Some(form) = elsewhere.first() {
        let mut places: Vec<String> = form.within.iter().map(|at| at.words()).collect();
        if places.len() > 3 {
            places.truncate(3);
            places.push("…".into());
        }
        format!("`{name}` stands {}", places.join(", "))
    } else if LATER.contains(&name) {
        format!("this version of flow does not read `{name}` yet; leave it out")
    } else if here.is_empty() {
        "nothing may stand here".into()
    } else {
        format!("what may stand {}: {}", at.words(), list(here.iter().copied()))
    };
    report.add(
        Draft::new("unknown-node", node.place(), format!("there is no `{name}` {}", at.words()))
            .label("unknown node")
            .help(help),
    );
}

fn arguments(node: Node<'_>, form: &'static Form, report: &Report) {
    let values: Vec<Value<'_>> = node.args().collect();
    let needed = form.args.iter().filter(|arg| matches!(arg.many, Many::One | Many::Some)).count();
    if values.len() < needed {
        let missing: Vec<&str> = form.args.iter().skip(values.len()).take(needed - values.len()).map(what).collect();
        report.add(
            Draft::new(
                "missing-argument",
                node.place(),
                format!("`{}` lacks its {}", form.name, missing.join(" and ")),
            )
            .label("incomplete")
            .help(format!("it is written: {}", form.example)),
        );
    }
    for (n, value) in values.iter().enumerate() {
        let open = |arg: &&Arg| matches!(arg.many, Many::Some | Many::Any);
        match form.args.get(n).or_else(|| form.args.last().filter(open)) {
            Some(arg) => typed(*value, arg.ty, &format!("the {} of `{}`", arg.what, form.name), form, report),
            None => {
                if form.name == "secret" {
                    report.hide(value.place());
                }
                report.add(
                    Draft::new("extra-argument", value.place(), format!("`{}` takes no argument here", form.name))
                        .label("one too many")
                        .help(format!("it is written: {}", form.example)),
                );
                break;
            }
        }
    }
}

fn what(arg: &Arg) -> &'static str {
    arg.what
}

fn properties(node: Node<'_>, form: &'static Form, report: &Report) {
    let mut seen: Vec<Value<'_>> = Vec::new();
    for value in node.entries() {
        let Some(key) = value.key() else { continue };
        let repeats = form.props.iter().any(|prop| prop.name == key && prop.repeat);
        if let Some(first) = seen.iter().find(|other| other.key() == Some(key) && !repeats) {
            report.add(
                Draft::new("repeated-property", value.place(), format!("`{key}` is given twice"))
                    .label("again here")
                    .other(first.place(), "first here")
                    .help("keep one of the two"),
            );
            continue;
        }
        seen.push(value);
        if let Some(prop) = form.props.iter().find(|prop| prop.name == key) {
            typed(value, prop.ty, &format!("`{key}` of `{}`", form.name), form, report);
        } else if let Some(ty) = form.open.filter(|_| !LATER.contains(&key)) {
            if check_name(key).is_err() {
                let help = comparison(key).unwrap_or_else(|| format!("it is written: {}", form.example));
                report.add(Draft::new("bad-name", value.place(), format!("`{key}` is no name")).help(help));
            }
            typed(value, ty, &format!("`{key}` of `{}`", form.name), form, report);
        } else {
            let names = || form.props.iter().map(|prop| prop.name);
            let help = if let Some(near) = nearest(key, names()) {
                format!("did you mean `{near}`?")
            } else if LATER.contains(&key) {
                format!("this version of flow does not read `{key}` yet; leave it out")
            } else if let Some(help) = comparison(key) {
                help
            } else if form.inner.form(key).is_some() {
                format!("`{key}` is a node of its own: write it in braces, `{} … {{ {key} … }}`", form.name)
            } else if form.props.is_empty() {
                format!("it has no properties; it is written: {}", form.example)
            } else {
                format!("it has {}", list(names()))
            };
            report.add(
                Draft::new("unknown-property", value.place(), format!("`{}` has no property `{key}`", form.name))
                    .label("unknown property")
                    .help(help),
            );
        }
    }
    for prop in form.props.iter().filter(|prop| prop.must && node.prop(prop.name).is_none()) {
        report.add(
            Draft::new("missing-property", node.place(), format!("`{}` lacks `{}=`", form.name, prop.name))
                .label("incomplete")
                .help(format!("add {}={}", prop.name, hint(prop.ty))),
        );
    }
    if let (Some(_), None) = (form.open, node.entries().next()) {
        report.add(
            Draft::new("missing-property", node.place(), format!("`{}` says nothing", form.name))
                .label("incomplete")
                .help(format!("it is written: {}", form.example)),
        );
    }
}

fn comparison(key: &str) -> Option<String> {
    key.starts_with(['<', '>', '!']).then(|| "a comparison is read as a property; put it in quotes".into())
}

fn hint(ty: Ty) -> String {
    match ty {
        Ty::Word(words) => words.join(" or "),
        Ty::Whole(low, _) => low.max(1).to_string(),
        Ty::Percent => "\"2%\"".into(),
        Ty::Number => "1e-3".into(),
        Ty::Times => "\"10x\"".into(),
        Ty::Span => "\"10m\"".into(),
        Ty::Money => "(usd)12.50".into(),
        Ty::Date => "\"2025-09-29\"".into(),
        Ty::Name => "NAME".into(),
        _ => "\"…\"".into(),
    }
}
