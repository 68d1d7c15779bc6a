//! What `systemctl enable` makes of a unit: the `[Install]` section of its file and its drop-ins (systemd.unit(5), and
//! where it is silent systemd's src/shared/install.c, v252 to v257). Nothing is read from disk or made here.

use std::collections::BTreeMap;

use super::syntax::{self, Assignment};

/// Kinds of units that may have aliases (`unit_type_may_alias()` in systemd's src/basic/unit-def.c).
const ALIASED: [&str; 6] = ["service", "socket", "target", "device", "timer", "path"];
/// All kinds of units.
const KINDS: [&str; 11] =
    ["service", "socket", "target", "device", "mount", "automount", "swap", "timer", "path", "slice", "scope"];

/// The three forms of a unit's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `app.service`
    Plain,
    /// `app@.service`
    Template,
    /// `app@one.service`
    Instance,
}

/// A unit's name in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// Up to the first `@`, or up to the kind where there is none.
    pub prefix: &'a str,
    /// Between `@` and the kind; empty for a template, none for a plain unit.
    pub instance: Option<&'a str>,
    /// `service`
    pub kind: &'a str,
}

impl<'a> Name<'a> {
    /// The parts of a name that systemd takes for a unit's (`unit_name_is_valid()`); none for any other.
    pub fn parse(name: &'a str) -> Option<Self> {
        let (stem, kind) = name.rsplit_once('.')?;
        let (prefix, instance) = match stem.split_once('@') {
            Some((prefix, instance)) => (prefix, Some(instance)),
            None => (stem, None),
        };
        let fits = KINDS.contains(&kind) && name.len() < 256 && !prefix.is_empty();
        (fits && is_allowed(stem)).then_some(Self { prefix, instance, kind })
    }

    /// Which form the name has.
    pub fn form(&self) -> Form {
        match self.instance {
            None => Form::Plain,
            Some("") => Form::Template,
            Some(_) => Form::Instance,
        }
    }

    /// The name of this template's instance.
    fn with(&self, instance: &str) -> String {
        format!("{}@{instance}.{}", self.prefix, self.kind)
    }
}

/// The characters of names and instances.
fn is_allowed(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte))
}

/// The `[Install]` section of a unit with its drop-ins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Install {
    unit: String,
    /// The name of the file that the unit is made from: itself, or its template.
    file: String,
    /// The other names that it gets.
    pub alias: Vec<String>,
    /// The units that are enabled along.
    pub also: Vec<String>,
    /// The instance that is meant where a template is enabled.
    pub default_instance: Option<String>,
    wanted_by: Vec<String>,
    required_by: Vec<String>,
    upheld_by: Vec<String>,
}

impl Install {
    /// Reads the section of `unit` from its file (or its template's) and then its drop-ins, in the order of their names;
    /// each with its name.
    ///
    /// # Errors
    /// What systemd would refuse, or read otherwise in another version, as a sentence that names file and line.
    pub fn read<'a>(
        unit: &str,
        file: (&str, &[u8]),
        drop_ins: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, String> {
        if file.1.is_empty() {
            return Err(format!("{}: is empty, which systemd takes for a mask", file.0));
        }
        let mut install = Self { unit: unit.to_owned(), file: file.0.to_owned(), ..Self::default() };
        install.add(file.0, file.1)?;
        for (name, content) in drop_ins {
            install.add(name, content)?;
        }
        install.expand()?;
        Ok(install)
    }

    fn name(&self) -> Result<Name<'_>, String> {
        Name::parse(&self.unit).ok_or_else(|| format!("{} is not the name of a unit", self.unit))
    }

    fn add(&mut self, file: &str, content: &[u8]) -> Result<(), String> {
        let found = syntax::assignments(content).map_err(|error| format!("{file}: {error}"))?;
        for one in found.iter().filter(|one| one.section == "Install") {
            self.take(one).map_err(|problem| format!("{file}: line {}: {}= {problem}", one.line, one.key))?;
        }
        Ok(())
    }

    fn take(&mut self, one: &Assignment) -> Result<(), String> {
        let (form, kind) = (self.name()?.form(), self.name()?.kind.to_owned());
        let list = match one.key.as_str() {
            "WantedBy" => &mut self.wanted_by,
            "RequiredBy" => &mut self.required_by,
            "UpheldBy" => &mut self.upheld_by,
            "Alias" if ALIASED.contains(&kind.as_str()) => &mut self.alias,
            // Words of another making than the other lists', and no empty value that resets it.
            "Also" => {
                if one.value.contains(['"', '\'', '\\']) {
                    return Err("has a quote or a backslash; it takes plain names".to_owned());
                }
                for word in syntax::words(&one.value)? {
                    let name = self.specified(&word)?;
                    Name::parse(&name).ok_or_else(|| format!("names {name:?}, which is not the name of a unit"))?;
                    self.also.push(name);
                }
                return Ok(());
            }
            // Enabling an instance is not about another one.
            "DefaultInstance" if form != Form::Instance => {
                let instance = self.specified(&one.value)?;
                if !is_allowed(&instance) {
                    return Err(format!("names {instance:?}, which is not the name of an instance"));
                }
                self.default_instance = Some(instance).filter(|instance| !instance.is_empty());
                return Ok(());
            }
            _ => return Ok(()),
        };
        if one.value.is_empty() {
            list.clear();
        } else {
            list.extend(syntax::words(&one.value)?);
        }
        Ok(())
    }

    /// Replaces specifiers, once the default instance is known, and checks the names.
    fn expand(&mut self) -> Result<(), String> {
        let alias = self.alias.iter().map(|word| self.as_alias(word)).collect::<Result<_, _>>()?;
        let lists = [("WantedBy", &self.wanted_by), ("RequiredBy", &self.required_by), ("UpheldBy", &self.upheld_by)];
        let [wanted_by, required_by, upheld_by] =
            lists.map(|(key, list)| list.iter().map(|word| self.as_target(key, word)).collect::<Result<_, String>>());
        (self.alias, self.wanted_by, self.required_by, self.upheld_by) = (alias, wanted_by?, required_by?, upheld_by?);
        Ok(())
    }

    fn as_target(&self, key: &str, word: &str) -> Result<String, String> {
        let about = |problem: String| format!("{}: {key}={word}: {problem}", self.unit);
        let target = self.specified(word).map_err(about)?;
        Name::parse(&target).ok_or_else(|| about("is not the name of a unit".to_owned()))?;
        Ok(target)
    }

    fn as_alias(&self, word: &str) -> Result<String, String> {
        let wrong = |problem: &str| format!("{}: Alias={word} {problem}", self.unit);
        let alias = self.specified(word).map_err(|problem| wrong(&problem))?;
        let unit = self.name()?;
        let name = Name::parse(&alias).ok_or_else(|| wrong("is not a name for it"))?;
        if name.kind != unit.kind {
            return Err(wrong(&format!("is not a name for it: it is no {}", unit.kind)));
        }
        match (unit.form(), name.form()) {
            // Of the template's other name the same instance is meant.
            (Form::Instance, Form::Template) => Ok(name.with(unit.instance.unwrap_or_default())),
            (Form::Instance, Form::Instance) if unit.instance == name.instance => Ok(alias),
            (unit, name) if unit == name && unit != Form::Instance => Ok(alias),
            _ => Err(wrong("is not a name for it: one has an instance that the other does not have")),
        }
    }

    /// A text with its specifiers replaced, as far as they are about the unit's name (systemd.unit(5), "Specifiers").
    fn specified(&self, text: &str) -> Result<String, String> {
        let name = self.name()?;
        let instance = match (name.instance, &self.default_instance) {
            (Some(""), Some(default)) => Some(default.as_str()),
            (instance, _) => instance,
        };
        let stem = instance.map_or_else(|| name.prefix.to_owned(), |instance| format!("{}@{instance}", name.prefix));
        let mut expanded = String::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                expanded.push(letter);
                continue;
            }
            match letters.next() {
                Some('n') => expanded.push_str(&format!("{stem}.{}", name.kind)),
                Some('N') => expanded.push_str(&stem),
                Some('p') => expanded.push_str(name.prefix),
                Some('i') => expanded.push_str(instance.unwrap_or_default()),
                Some('j') => expanded.push_str(name.prefix.rsplit('-').next().unwrap_or_default()),
                Some('%') => expanded.push('%'),
                _ => {
                    return Err(format!(
                        "has a specifier in {text:?} that is not about the unit's name (%n %N %p %i %j)"
                    ));
                }
            }
        }
        Ok(expanded)
    }

    /// The links that enabling makes, each with the name of the file that it points to. Those of `UpheldBy=` are made by
    /// systemd 254 and later only.
    pub fn links(&self) -> BTreeMap<String, String> {
        let mut links: BTreeMap<String, String> = BTreeMap::new();
        let instance =
            Name::parse(&self.unit).filter(|name| name.form() == Form::Template).zip(self.default_instance.as_ref());
        let wanted = instance.map_or_else(|| self.unit.clone(), |(name, instance)| name.with(instance));
        // Without an instance only what has instances itself can want it.
        let is_open = Name::parse(&wanted).is_some_and(|name| name.form() == Form::Template);
        let wants = |target: &&String| !is_open || Name::parse(target).is_some_and(|name| name.form() != Form::Plain);
        let lists = [("wants", &self.wanted_by), ("requires", &self.required_by), ("upholds", &self.upheld_by)];
        for (suffix, list) in lists {
            for target in list.iter().filter(wants) {
                links.insert(format!("{target}.{suffix}/{wanted}"), self.file.clone());
            }
        }
        links.extend(self.alias.iter().filter(|alias| **alias != self.unit).map(|a| (a.clone(), self.file.clone())));
        links
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(unit: &str, content: &str) -> Result<Install, String> {
        Install::read(unit, (unit, format!("[Install]\n{content}").as_bytes()), [])
    }

    fn links(unit: &str, content: &str) -> Vec<String> {
        read(unit, content).unwrap().links().into_keys().collect()
    }

    #[test]
    fn links_are_those_of_systemd() {
        for (unit, content, expected) in [
            (
                "a.service",
                "WantedBy=x.target \\\n y.target\n",
                &["x.target.wants/a.service", "y.target.wants/a.service"][..],
            ),
            ("a.service", "WantedBy=x.target\nWantedBy=\nRequiredBy=y.target\n", &["y.target.requires/a.service"]),
            ("a.service", "Alias=b.service \"c.service\"\n", &["b.service", "c.service"]),
            (
                "a-b.service",
                "WantedBy=%p-%j.target\nAlias=%N-2.service\n",
                &["a-b-2.service", "a-b-b.target.wants/a-b.service"],
            ),
            ("a@.service", "WantedBy=x.target\n", &[]),
            ("a@.service", "WantedBy=x-%i.target\nDefaultInstance=one\n", &["x-one.target.wants/a@one.service"]),
            ("a@.service", "Alias=b@.service\nDefaultInstance=one\n", &["b@.service"]),
            ("a@one.service", "Alias=b@.service\nDefaultInstance=two\n", &["b@one.service"]),
            ("srv.mount", "Alias=b.mount\nWantedBy=x.target\n", &["x.target.wants/srv.mount"]),
        ] {
            assert_eq!(links(unit, content), expected, "{unit} {content:?}");
        }
    }

    #[test]
    fn drop_ins_add_and_reset() {
        let file = ("a.service", &b"[Install]\nWantedBy=x.target\nAlias=b.service\n"[..]);
        let drop_in = ("a.service.d/x.conf", &b"[Install]\nWantedBy=\nWantedBy=y.target\nAlias=c.service\n"[..]);
        let install = Install::read("a.service", file, [drop_in]).unwrap();
        let links: Vec<String> = install.links().into_keys().collect();
        assert_eq!(links, ["b.service", "c.service", "y.target.wants/a.service"]);
    }

    #[test]
    fn what_systemd_refuses_or_reads_otherwise_elsewhere_is_an_error() {
        for (unit, content, part) in [
            ("a.service", "WantedBy=\"x.target\n", "a quote that is not closed"),
            ("a.service", "WantedBy=x\n", "is not the name of a unit"),
            ("a.service", "Alias=b.socket\n", "is no service"),
            ("a.service", "Alias=x.target.wants/a.service\n", "not a name for it"),
            ("a.service", "Alias=b@x.service\n", "not a name for it"),
            ("a@x.service", "Alias=b@y.service\n", "not a name for it"),
            ("a.service", "WantedBy=%H.target\n", "a specifier"),
            ("a.service", "Also=\"b.service\"\n", "a quote or a backslash"),
            ("a@.service", "DefaultInstance=a b\n", "not the name of an instance"),
            ("a.service", "WantedBy=x.target\n[Install\n", "line 3"),
        ] {
            let problem = read(unit, content).unwrap_err();
            assert!(problem.contains(part), "{content:?}: {problem}");
        }
    }
}

#[cfg(test)]
#[path = "../../tests/fuzz/unit_files.rs"]
mod fuzzed;
