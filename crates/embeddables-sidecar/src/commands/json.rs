//! Messages as JSON: the field names of the `.proto` files, names for enum values, 64-bit integers as strings.
//!
//! Fields with their default are written too, so that a script finds what it asks for; absent messages are left out.

use std::sync::OnceLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use super::failure::{Failure, chain};

/// A message of the events package, by its name there, as one line of JSON.
pub(super) fn to_json(name: &str, message: &impl Message) -> Result<String, Failure> {
    write("embeddables.events.v1", name, message)
}

/// A message of the admin package, by its name there, as one line of JSON.
pub(super) fn admin_to_json(name: &str, message: &impl Message) -> Result<String, Failure> {
    write("embeddables.admin.v1", name, message)
}

fn write(package: &str, name: &str, message: &impl Message) -> Result<String, Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::new(format!("cannot write `{name}` as JSON: {}", chain(error)))
    };
    let pool = pool().as_ref().map_err(|error| failed(error))?;
    let full_name = format!("{package}.{name}");
    let descriptor = pool
        .get_message_by_name(&full_name)
        .ok_or_else(|| Failure::new(format!("`{full_name}` is in no .proto file")))?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .map_err(|error| failed(&error))?;
    let mut json = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut json);
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(false);
    dynamic
        .serialize_with_options(&mut serializer, &options)
        .map_err(|error| failed(&error))?;
    String::from_utf8(json).map_err(|error| failed(&error))
}

fn pool() -> &'static Result<DescriptorPool, prost_reflect::DescriptorError> {
    static POOL: OnceLock<Result<DescriptorPool, prost_reflect::DescriptorError>> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(embeddables_proto::FILE_DESCRIPTOR_SET))
}

#[cfg(test)]
mod tests {
    use embeddables_proto::events::v1::{
        EventStatus, PublishResult, Receipt, Refusal, State, publish_result,
    };

    use super::*;

    #[track_caller]
    fn check(result: publish_result::Result, expected: serde_json::Value) {
        let json = to_json("PublishResult", &PublishResult { result: Some(result) }).expect("is JSON");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&json).unwrap(),
            expected
        );
        assert!(!json.contains('\n'), "one line: {json}");
    }

    #[test]
    fn a_message_keeps_the_names_of_its_fields_and_of_enum_values() {
        let status = EventStatus {
            event_id: "e1".to_owned(),
            state: State::Delivered.into(),
            accept_time: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 5_000_000,
            }),
            receipt: Some(Receipt {
                entry_id: "entry_1".to_owned(),
                ..Receipt::default()
            }),
            ..EventStatus::default()
        };
        check(
            publish_result::Result::Status(status),
            serde_json::json!({"status": {
                "event_id": "e1", "project_id": "", "state": "STATE_DELIVERED", "duplicate": false,
                "durability": "DURABILITY_UNSPECIFIED", "accept_time": "2023-11-14T22:13:20.005Z", "reason": "",
                "message": "", "attempts": [], "attempt_count": 0, "possible_duplicate": false,
                "receipt": {"entry_id": "entry_1", "contact_id": "", "group_id": "", "embeddable_version_number": "",
                    "unparsed": false},
            }}),
        );
    }

    #[test]
    fn a_refusal_tells_code_reason_and_violations() {
        let refusal = Refusal {
            code: 3,
            reason: "INVALID_EVENT".to_owned(),
            ..Refusal::default()
        };
        check(
            publish_result::Result::Refusal(refusal),
            serde_json::json!({"refusal": {"code": 3, "reason": "INVALID_EVENT", "message": "", "violations": []}}),
        );
    }
}
