//! Standard output, closed or not: `embeddables-sidecar … | head` neither panics nor leaves work undone.

use std::io::{self, ErrorKind, Write};

use super::failure::Failure;

/// Writes results. Once the reading side is gone it writes nothing more; any other failure is one of the command.
pub(super) struct Printer {
    out: Box<dyn Write>,
    is_closed: bool,
}

impl Printer {
    pub(super) fn stdout() -> Self {
        // Standard output is buffered by line; nothing is lost where the process ends by a signal.
        Self::new(Box::new(io::stdout()))
    }

    pub(super) fn new(out: Box<dyn Write>) -> Self {
        Self {
            out,
            is_closed: false,
        }
    }

    /// Whether the reading side is gone: nobody sees what is still to come.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Writes a line.
    pub(super) fn line(&mut self, line: impl AsRef<str>) -> Result<(), Failure> {
        self.text(&format!("{}\n", line.as_ref()))
    }

    /// Writes a text as it is.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        if self.is_closed {
            return Ok(());
        }
        let written = self.out.write_all(text.as_bytes());
        self.check(written)
    }

    /// Writes what is still buffered.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        if self.is_closed {
            return Ok(());
        }
        let flushed = self.out.flush();
        self.check(flushed)
    }

    fn check(&mut self, written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(())
            }
            Err(error) => Err(Failure::new(format!("cannot write to standard output: {error}"))),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A printer into memory, and what was printed.
    pub(crate) fn to_memory() -> (Printer, Arc<Mutex<Vec<u8>>>) {
        let memory = Arc::new(Mutex::new(Vec::new()));
        (Printer::new(Box::new(Memory(Arc::clone(&memory)))), memory)
    }

    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let mut printer = Printer::new(Box::new(Failing(ErrorKind::BrokenPipe)));
        assert!(printer.line("a").is_ok() && printer.line("b").is_ok() && printer.finish().is_ok());
    }

    #[test]
    fn a_full_disk_is_a_failure() {
        let mut printer = Printer::new(Box::new(Failing(ErrorKind::StorageFull)));
        assert_eq!(printer.line("a").unwrap_err().exit_code(), 1);
    }
}
