//! The log: where it goes, its form, and its level, which can change at any time.
//!
//! A line is written by the thread that logs it, in one call, so lines never mix and none is lost in a buffer when the
//! process ends. The data path logs nothing per request; a log that stalls (a full pipe) stalls only who logs.

use std::{
    fmt,
    fs::File,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use tracing::{Dispatch, level_filters::LevelFilter};
use tracing_subscriber::{Layer, Registry, fmt::MakeWriter, layer::SubscriberExt, reload};

use crate::config::{Config, LogFormat, LogLevel};

/// The running log.
#[derive(Clone)]
pub struct Logging {
    level: reload::Handle<LevelFilter, Registry>,
    sink: Sink,
}

impl Logging {
    /// Starts the log of this process.
    ///
    /// # Errors
    /// When the file cannot be opened, or the process has a log already.
    pub fn start(config: &Config) -> Result<Self, LoggingError> {
        let sink = match log_path(config) {
            None => Sink::StandardOutput,
            Some(path) => Sink::File(Arc::new(LogFile::open(&path)?)),
        };
        let is_colored = matches!(sink, Sink::StandardOutput)
            && io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let (dispatch, level) = assemble(config, sink.clone(), is_colored);
        tracing::dispatcher::set_global_default(dispatch).map_err(|_| LoggingError::AlreadyStarted)?;
        Ok(Self { level, sink })
    }

    /// Changes what is logged from now on, on every thread.
    pub fn set_level(&self, level: LogLevel) {
        // The handle outlives the log only when the process ends; then there is nothing to change.
        let _ = self.level.reload(filter(level));
    }

    /// Opens the log file again under its name, after something moved the old one away; nothing for standard output.
    ///
    /// # Errors
    /// When the file cannot be opened; the log then goes on into the old one.
    pub fn reopen(&self) -> Result<(), LoggingError> {
        match &self.sink {
            Sink::StandardOutput => Ok(()),
            Sink::File(file) => file.reopen(),
        }
    }
}

/// Why there is no log.
#[derive(Debug)]
pub enum LoggingError {
    /// The file could not be opened.
    File {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The process has a log already, which goes on.
    AlreadyStarted,
}

impl fmt::Display for LoggingError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => {
                let path = path.display();
                write!(formatter, "cannot open the log file {path}: {error}; check logfile and dir")
            }
            Self::AlreadyStarted => formatter.write_str("the process has a log already"),
        }
    }
}

impl std::error::Error for LoggingError {}

/// The log file's absolute path. It starts from `dir`, entered already or not, and stays right when it is entered.
fn log_path(config: &Config) -> Option<PathBuf> {
    let path = config.directory.join(config.log_file.as_ref()?);
    // Without a working directory a relative path leads nowhere, which opening it reports.
    Some(std::path::absolute(&path).unwrap_or(path))
}

/// How Redis's levels map to those of `tracing`.
fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::TRACE,
        LogLevel::Verbose => LevelFilter::DEBUG,
        LogLevel::Notice => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Nothing => LevelFilter::OFF,
    }
}

fn assemble<W>(
    config: &Config,
    writer: W,
    is_colored: bool,
) -> (Dispatch, reload::Handle<LevelFilter, Registry>)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (level, handle) = reload::Layer::new(filter(config.log_level));
    // A log that cannot be written is no reason to write elsewhere, let alone to panic when that fails, too.
    let lines =
        tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false).with_target(false);
    let lines = match config.log_format {
        LogFormat::Text => lines.with_ansi(is_colored).with_thread_names(true).boxed(),
        LogFormat::Json => lines.with_ansi(false).json().flatten_event(true).with_thread_names(true).boxed(),
    };
    (Dispatch::new(Registry::default().with(level).with(lines)), handle)
}

#[derive(Clone)]
enum Sink {
    StandardOutput,
    File(Arc<LogFile>),
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = SinkWriter;

    fn make_writer(&'a self) -> SinkWriter {
        match self {
            Self::StandardOutput => SinkWriter::StandardOutput(io::stdout()),
            Self::File(file) => SinkWriter::File(file.current()),
        }
    }
}

enum SinkWriter {
    StandardOutput(io::Stdout),
    File(Arc<File>),
}

impl Write for SinkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::StandardOutput(output) => output.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::StandardOutput(output) => output.flush(),
            Self::File(file) => file.flush(),
        }
    }
}

/// A file that is only appended to. The kernel keeps appended lines whole, so writers need no lock; the one here lets
/// the file be exchanged.
struct LogFile {
    path: PathBuf,
    file: RwLock<Arc<File>>,
}

impl LogFile {
    fn open(path: &Path) -> Result<Self, LoggingError> {
        Ok(Self { path: path.to_owned(), file: RwLock::new(Arc::new(append_to(path)?)) })
    }

    fn reopen(&self) -> Result<(), LoggingError> {
        let file = Arc::new(append_to(&self.path)?);
        // Whoever panicked with the lock held left a whole value behind: it is only ever replaced.
        *self.file.write().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    fn current(&self) -> Arc<File> {
        Arc::clone(&self.file.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn append_to(path: &Path) -> Result<File, LoggingError> {
    let opened = File::options().append(true).create(true).open(path);
    opened.map_err(|error| LoggingError::File { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Mutex};

    use tracing::{dispatcher::with_default, error, info, warn};

    use super::*;

    /// What was logged, for a test to read.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Memory {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logging_to_memory(config: &Config) -> (Dispatch, Logging, Memory) {
        let memory = Memory::default();
        let writer = memory.clone();
        let (dispatch, level) = assemble(config, move || writer.clone(), false);
        (dispatch, Logging { level, sink: Sink::StandardOutput }, memory)
    }

    #[test]
    fn the_level_decides_what_is_logged_and_can_change() {
        let (dispatch, logging, memory) = logging_to_memory(&Config::default());
        with_default(&dispatch, || {
            let log_each = || {
                tracing::trace!("a trace");
                tracing::debug!("a detail");
                info!("a notice");
                warn!("a warning");
                error!("an error");
                memory.take().lines().count()
            };
            assert_eq!(log_each(), 3, "notice is the default");
            let expected = [
                (LogLevel::Warning, 2),
                (LogLevel::Nothing, 0),
                (LogLevel::Verbose, 4),
                (LogLevel::Debug, 5),
                (LogLevel::Notice, 3),
            ];
            for (level, lines) in expected {
                logging.set_level(level);
                assert_eq!(log_each(), lines, "{level:?}");
            }
        });
    }

    #[test]
    fn text_lines_carry_time_level_thread_message_and_fields() {
        let (dispatch, _logging, memory) = logging_to_memory(&Config::default());
        with_default(&dispatch, || info!(port = 6379, "listening"));
        let line = memory.take();
        let thread = std::thread::current().name().unwrap().to_owned();
        assert!(line.starts_with("20") && line.ends_with("listening port=6379\n"), "{line}");
        assert!(line.contains(" INFO ") && line.contains(&thread), "{line}");
        assert!(!line.contains('\u{1b}'), "no colour codes outside a terminal: {line}");
    }

    #[test]
    fn json_lines_are_one_object_each() {
        let config = Config { log_format: LogFormat::Json, ..Config::default() };
        let (dispatch, _logging, memory) = logging_to_memory(&config);
        with_default(&dispatch, || info!(port = 6379, "two\nlines"));
        let line = memory.take();
        assert!(line.starts_with('{') && line.ends_with("}\n") && line.lines().count() == 1, "{line}");
        for part in
            ["\"level\":\"INFO\"", "\"message\":\"two\\nlines\"", "\"port\":6379", "\"timestamp\":\"20"]
        {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn a_file_is_appended_to_and_opened_again_after_a_move() {
        let directory = std::env::temp_dir().join(format!("duva-logging-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (path, moved) = (directory.join("log"), directory.join("log.1"));
        fs::write(&path, "earlier\n").unwrap();
        let sink = Sink::File(Arc::new(LogFile::open(&path).unwrap()));
        let (dispatch, level) = assemble(&Config::default(), sink.clone(), false);
        let logging = Logging { level, sink };
        with_default(&dispatch, || {
            info!("first");
            fs::rename(&path, &moved).unwrap();
            info!("second");
            logging.reopen().unwrap();
            info!("third");
        });
        let old = fs::read_to_string(&moved).unwrap();
        let new = fs::read_to_string(&path).unwrap();
        assert!(old.starts_with("earlier\n") && old.contains("first") && old.ends_with("second\n"), "{old}");
        assert!(new.ends_with("third\n") && new.lines().count() == 1, "{new}");
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_relative_file_starts_from_the_directory() {
        let path = |directory: &str, file: Option<&str>| {
            let (directory, log_file) = (PathBuf::from(directory), file.map(PathBuf::from));
            log_path(&Config { directory, log_file, ..Config::default() })
        };
        assert_eq!(path("/d", None), None);
        assert_eq!(path("/d", Some("log")), Some(PathBuf::from("/d/log")));
        assert_eq!(path("/d", Some("/var/log")), Some(PathBuf::from("/var/log")));
        assert_eq!(path(".", Some("log")), Some(std::env::current_dir().unwrap().join("log")));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named_with_the_setting() {
        let error = LogFile::open(Path::new("/nonexistent/duva.log")).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("cannot open the log file /nonexistent/duva.log: No such file"), "{error}");
        assert!(error.ends_with("check logfile and dir"), "{error}");
    }
}
