//! What a section of the configuration is made of: one macro that keeps a key's name, type, default and documentation together.

/// One key as `config-reference` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name within the section.
    pub name: &'static str,
    /// Its documentation: effect, unit, default, edge value; a line each as in the source.
    pub doc: &'static str,
}

/// One section as `config-reference` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name in brackets; `projects.<id>` for the one that there are many of.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Its keys in the order of the source.
    pub fields: &'static [Field],
}

impl Field {
    /// The documentation as lines without indentation.
    pub fn doc_lines(&self) -> impl Iterator<Item = &'static str> {
        self.doc.lines().map(str::trim)
    }

    /// The example in the documentation, in TOML, where there is one.
    pub fn example(&self) -> Option<&'static str> {
        self.doc
            .split_once("Example: `")
            .and_then(|(_, rest)| rest.split_once("`."))?
            .0
            .into()
    }
}

/// Defines a section: the struct, its defaults, and its [`Section`] with the same documentation.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $type_name:ident = $name:literal {
            $(
                $(#[doc = $doc:literal])+
                $(#[serde($($serde:tt)+)])?
                $field:ident: $type:ty = $default:expr;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $type_name {
            $($(#[doc = $doc])+ $(#[serde($($serde)+)])? pub $field: $type,)+
        }

        impl Default for $type_name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $type_name {
            /// Names and documentation of the section's keys.
            pub const SECTION: Section = Section {
                name: $name,
                about: concat!($($about, "\n",)+),
                fields: &[$(Field { name: stringify!($field), doc: concat!($($doc, "\n",)+) },)+],
            };
        }
    };
}

pub(super) use section;
