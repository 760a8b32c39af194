//! Statements that a draft runs for record after record: each is taken out of the connection's cache once a draft, not once a
//! use.

use rusqlite::{CachedStatement, Connection};

use super::{append, rows, settle};

/// The statements of one draft.
pub(super) struct Statements<'a> {
    pub(super) insert_id: Kept<'a>,
    pub(super) insert_record: Kept<'a>,
    pub(super) read_record: Kept<'a>,
    pub(super) delete_record: Kept<'a>,
    pub(super) insert_outcome: Kept<'a>,
}

impl<'a> Statements<'a> {
    /// Takes none out yet.
    pub(super) fn new(connection: &'a Connection) -> Self {
        let kept = |prepare| Kept {
            connection,
            prepare,
            statement: None,
        };
        Self {
            insert_id: kept(append::id_statement),
            insert_record: kept(append::record_statement),
            read_record: kept(rows::record_statement),
            delete_record: kept(settle::delete_statement),
            insert_outcome: kept(rows::outcome_statement),
        }
    }
}

type Prepare<'a> = fn(&'a Connection) -> rusqlite::Result<CachedStatement<'a>>;

/// A statement that is kept from its first use on.
pub(super) struct Kept<'a> {
    connection: &'a Connection,
    prepare: Prepare<'a>,
    statement: Option<CachedStatement<'a>>,
}

impl<'a> Kept<'a> {
    /// The statement, taken out now if this is its first use.
    pub(super) fn get(&mut self) -> rusqlite::Result<&mut CachedStatement<'a>> {
        match &mut self.statement {
            Some(statement) => Ok(statement),
            none => Ok(none.insert((self.prepare)(self.connection)?)),
        }
    }
}
