//! Load generator, null server and side-by-side runs.
