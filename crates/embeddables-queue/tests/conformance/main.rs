//! One suite for every backend: each case is a sentence about the interface and runs against all of them.

#![allow(clippy::unwrap_used, reason = "helpers of tests: the panic is the failure")]

mod accepting;
mod backend;
mod claiming;
mod deadlines;
mod dividing;
mod gates;
mod lanes;
mod ledger;
mod opening;
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
        a_call_may_repeat_ids_of_its_own,
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
    dividing:
        live_records_get_their_percentage_and_the_backlog_the_rest,
        when_the_backlog_is_done_live_records_become_the_backlog,
        without_a_percentage_records_come_in_order_of_sequence,
        waiting_records_get_half_of_what_is_not_for_live_ones,
        single_slots_take_turns_so_that_nothing_starves,
        waiting_records_beyond_their_bound_are_not_more_but_due,
        waiting_records_that_did_not_fit_are_more,
        a_released_record_keeps_its_place_among_old_or_live_ones,
        a_released_live_record_is_claimed_once_when_it_becomes_the_backlog;
    gates:
        invariant_9_while_a_key_has_a_head_its_other_records_are_behind,
        another_key_and_another_lane_are_not_held_back,
        a_head_that_leaves_hands_over_to_its_oldest_follower_at_once,
        a_follower_that_leaves_leaves_the_others_where_they_are,
        a_second_leader_follows_the_first,
        a_record_may_follow_one_that_is_under_a_lease,
        with_nobody_to_follow_a_record_is_due_at_once,
        heads_and_followers_survive_a_restart,
        a_record_that_was_behind_is_interrupted_once_it_was_tried,
        a_lease_behind_a_head_can_be_settled_like_any_other,
        a_follower_promoted_under_its_lease_is_due_at_once_when_it_follows,
        a_release_leaves_head_and_followers_alone,
        a_replayed_record_is_behind_like_any_new_one,
        those_that_stand_in_line_go_by_their_sequence_whoever_comes_first,
        who_is_under_a_lease_is_not_overtaken_by_an_older_one_in_line;
    opening:
        an_open_key_lets_everybody_go_whoever_opened_it,
        a_record_that_opens_and_waits_keeps_its_own_time,
        very_many_followers_are_all_let_go,
        very_many_keys_may_have_heads,
        whoever_waits_is_woken_when_a_follower_is_let_go;
    deadlines:
        expired_records_come_in_order_of_their_deadline,
        a_record_expires_while_it_waits_but_not_under_a_lease,
        deadlines_survive_a_restart_and_leave_no_mark,
        a_dead_letter_and_its_replay_have_no_deadline,
        a_record_taken_out_of_turn_and_given_back_is_claimed_once,
        an_expired_head_hands_over;
    lanes:
        the_state_of_a_lane_is_kept,
        a_lane_that_is_stopped_does_not_age,
        a_replayed_record_is_young_again,
        a_lane_at_its_share_takes_nothing_new_and_leaves_the_others_alone,
        a_full_queue_is_told_before_a_full_lane,
        dead_letters_at_their_share_keep_new_records_out,
        the_newest_outcome_is_told,
        a_backlog_is_counted_up_to_a_sequence,
        a_deadline_takes_no_room;
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
