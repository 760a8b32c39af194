//! One suite for every backend: each case is a sentence about the interface and runs against all of them.

#![allow(clippy::unwrap_used, reason = "helpers of tests: the panic is the failure")]

mod accepting;
mod backend;
mod claiming;
mod ledger;
mod settling;

use backend::{Memory, Sqlite};

/// Runs each case named against each backend.
macro_rules! conformance {
    ($($module:ident: $($case:ident),+ $(,)?;)+) => {
        mod sqlite {
            $($(
                #[tokio::test]
                async fn $case() {
                    super::$module::$case(super::Sqlite::default()).await;
                }
            )+)+
        }
        mod memory {
            $($(
                #[tokio::test]
                async fn $case() {
                    super::$module::$case(super::Memory::default()).await;
                }
            )+)+
        }
    };
}

conformance! {
    accepting:
        invariant_1_an_answer_names_the_durability_reached,
        invariant_2_sequences_rise_and_are_never_reused,
        invariant_6_a_repeat_of_an_id_adds_nothing,
        the_same_id_at_the_same_time_is_accepted_once,
        an_id_is_unique_within_its_lane_only,
        another_content_under_a_known_id_is_a_conflict,
        an_atomic_call_is_taken_whole_or_not_at_all,
        an_atomic_call_may_repeat_itself,
        a_full_queue_refuses_new_records_and_knows_old_ones,
        an_unknown_lane_is_refused,
        a_durability_that_is_not_on_offer_is_refused,
        a_closed_queue_answers_closed;
    claiming:
        invariant_3_a_record_is_leased_once_at_a_time,
        invariant_4_an_open_lease_is_interrupted_after_a_restart,
        a_released_or_settled_record_is_not_interrupted_after_a_restart,
        an_interruption_outlives_a_release_and_another_restart,
        never_tried_records_come_first_then_waiting_ones_by_due_time,
        a_claim_says_whether_more_is_due_and_when_the_next_is,
        more_is_due_also_where_new_records_fill_the_claim,
        a_wait_in_the_past_is_due_at_once,
        a_clock_that_jumps_back_loses_no_waiting_record,
        a_released_record_comes_back_as_it_was,
        age_is_running_time_and_survives_restarts,
        whoever_waits_for_a_lane_is_woken,
        a_lane_that_is_not_configured_is_kept_and_takes_no_part;
    settling:
        invariant_5_a_settlement_moves_record_ledger_and_books_together,
        invariant_7_books_balance_through_everything,
        a_settlement_under_another_claim_changes_nothing,
        a_dead_letter_keeps_payload_reason_and_progress,
        a_replayed_dead_letter_is_the_newest_record_with_its_old_id,
        a_discarded_dead_letter_frees_its_id,
        taking_what_is_not_there_counts_nothing,
        settling_works_when_the_queue_is_full,
        bytes_come_back_as_they_were_given;
    ledger:
        an_id_is_found_in_every_state,
        outcomes_are_dense_and_in_order,
        ids_beyond_the_bound_are_forgotten_and_counted,
        ids_older_than_the_window_are_forgotten_uncounted,
        a_dead_letter_and_a_waiting_record_keep_their_ids,
        the_oldest_record_of_each_lane_is_known,
        dead_letters_are_listed_by_lane_and_in_pages,
        everything_survives_a_restart,
        the_secret_survives_a_restart;
}
