//! Which endpoint a path names, read as strictly as a gateway would: no empty and no dot segments, no
//! trailing slash, nothing percent-encoded in a project id. Any prefix may stand before `/projects`.

/// Longest project id in bytes.
const MAX_PROJECT_ID_BYTES: usize = 128;

/// An endpoint of the documented API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// `POST {prefix}/projects/{project}/events`
    Events { project: &'a str },
    /// `GET {prefix}/projects/{project}/entries`
    Entries { project: &'a str },
    /// `GET {prefix}/projects/{project}/entries-page-views`
    PageViews { project: &'a str },
    /// Anything else: 404.
    Unknown,
}

impl<'a> Route<'a> {
    /// The endpoint of a path (without query).
    pub(crate) fn of(path: &'a str) -> Self {
        let Some(path) = path.strip_prefix('/') else {
            return Self::Unknown;
        };
        if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Self::Unknown;
        }
        let mut from_the_end = path.rsplit('/');
        let (last, project, parent) = (from_the_end.next(), from_the_end.next(), from_the_end.next());
        let (Some(last), Some(project), Some("projects")) = (last, project, parent) else {
            return Self::Unknown;
        };
        if !is_project_id(project) {
            return Self::Unknown;
        }
        match last {
            "events" => Self::Events { project },
            "entries" => Self::Entries { project },
            "entries-page-views" => Self::PageViews { project },
            _ => Self::Unknown,
        }
    }

    /// The project that the path names.
    pub(crate) fn project(self) -> Option<&'a str> {
        match self {
            Self::Events { project } | Self::Entries { project } | Self::PageViews { project } => {
                Some(project)
            }
            Self::Unknown => None,
        }
    }
}

/// Whether `text` is 1 to 128 of `A-Z a-z 0-9 _ -`.
pub(crate) fn is_project_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_PROJECT_ID_BYTES && text.bytes().all(is_id_byte)
}

/// Whether a byte may stand in the id of a project or an Embeddable.
pub(crate) fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Route<'_>) {
        assert_eq!(Route::of(path), expected, "{path}");
    }

    #[test]
    fn any_prefix_may_stand_before_projects() {
        check("/projects/pr_1/events", Route::Events { project: "pr_1" });
        check("/v1/projects/pr_1/events", Route::Events { project: "pr_1" });
        check(
            "/a/b/projects/projects/events",
            Route::Events { project: "projects" },
        );
        check("/projects/pr-1/entries", Route::Entries { project: "pr-1" });
        check(
            "/projects/pr_1/entries-page-views",
            Route::PageViews { project: "pr_1" },
        );
    }

    #[test]
    fn a_path_that_was_put_together_wrongly_is_unknown() {
        for path in [
            "/",
            "//projects/pr_1/events",
            "/v1//projects/pr_1/events",
            "/projects/pr_1/events/",
            "/projects//events",
            "/projects/../events",
            "/projects/./events",
            "/x/../projects/pr_1/events",
            "/projects/pr%5F1/events",
            "/projects/pr.1/events",
            "/project/pr_1/events",
            "/projects/pr_1/event",
            "/projects/events",
            "projects/pr_1/events",
            "*",
        ] {
            check(path, Route::Unknown);
        }
    }

    #[test]
    fn a_project_id_has_at_most_128_bytes() {
        assert!(is_project_id(&"p".repeat(128)));
        assert!(!is_project_id(&"p".repeat(129)));
    }
}
