"""Publishes the events given on stdin over gRPC, reads each back, and prints what it saw as one JSON object."""

import json
import sys
import time

import grpc
from embeddables.events.v1 import event_pb2, events_service_pb2, events_service_pb2_grpc
from google.protobuf import timestamp_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

CALL_TIMEOUT_SECONDS = 20
DELIVERY_TIMEOUT_SECONDS = 60


def message(event):
    """The event as the contract has it, its properties as JSON text."""
    millis = event["unix_millis"]
    return event_pb2.Event(
        event_id=event["id"],
        embeddable_id=event["embeddable_id"],
        name=event["name"],
        timestamp=timestamp_pb2.Timestamp(seconds=millis // 1000, nanos=millis % 1000 * 1_000_000),
        identifier=event_pb2.Identifier(key="email", string_value=event["email"]),
        props_json=json.dumps(event["props"]),
    )


def publish(stub, events):
    """Sends each event in a call of its own, the first one twice; gives the ids and whether the last was a repeat."""
    statuses = []
    for event in [*events, events[0]]:
        request = events_service_pb2.PublishEventRequest(event=message(event))
        statuses.append(stub.PublishEvent(request, timeout=CALL_TIMEOUT_SECONDS).status)
    return [status.event_id for status in statuses[:-1]], statuses[-1].duplicate


def stream(stub, events):
    """Sends the events in one stream; gives the ids in the order in which they were acknowledged."""
    requests = (
        events_service_pb2.StreamEventsRequest(sequence=sequence, event=message(event))
        for sequence, event in enumerate(events)
    )
    ids = []
    for answer in stub.StreamEvents(requests, timeout=CALL_TIMEOUT_SECONDS):
        for result in answer.results:
            assert result.result.status.event_id == events[result.sequence]["id"], result
            ids.append(result.result.status.event_id)
    return ids


def refuse(stub, good):
    """Sends an event with two mistakes; gives how it was refused."""
    bad = message({**good, "id": "", "name": "Not Snake", "embeddable_id": ""})
    try:
        stub.PublishEvent(events_service_pb2.PublishEventRequest(event=bad), timeout=CALL_TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        refusal = {"code": error.code().name, "reason": "", "fields": [], "reasons": []}
        for detail in rpc_status.from_call(error).details:
            info, request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                refusal["reason"] = info.reason
            if detail.Unpack(request):
                refusal["fields"] = [violation.field for violation in request.field_violations]
                refusal["reasons"] = [violation.reason for violation in request.field_violations]
        return refusal
    raise AssertionError("a bad event was taken")


def await_delivered(stub, event_id):
    """Asks for the event until it is delivered; gives the name of its state."""
    deadline = time.monotonic() + DELIVERY_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        request = events_service_pb2.GetEventRequest(event_id=event_id)
        status = stub.GetEvent(request, timeout=CALL_TIMEOUT_SECONDS).status
        if status.state == event_pb2.STATE_DELIVERED:
            return event_pb2.State.Name(status.state)
        time.sleep(0.01)
    raise AssertionError(f"{event_id} was not delivered")


def main():
    given = json.load(sys.stdin)
    events = given["events"]
    half = len(events) // 2
    # Over a Unix socket gRPC would send the path as the authority, which the server's HTTP/2 refuses.
    options = [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(given["address"], options=options) as channel:
        stub = events_service_pb2_grpc.EventsServiceStub(channel)
        published, duplicate = publish(stub, events[:half])
        output = {
            "published": published,
            "duplicate": duplicate,
            "streamed": stream(stub, events[half:]),
            "refusal": refuse(stub, events[0]),
            "states": {event["id"]: await_delivered(stub, event["id"]) for event in events},
        }
    print(json.dumps(output))


if __name__ == "__main__":
    main()
