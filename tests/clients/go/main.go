// Publishes the events given on stdin over gRPC, reads each back, and prints what it saw as one JSON object.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	eventsv1 "e2eclient/eventsv1"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// input is what the test hands in.
type input struct {
	Address string  `json:"address"`
	Events  []event `json:"events"`
}

// event is one event that the test made up.
type event struct {
	ID           string         `json:"id"`
	EmbeddableID string         `json:"embeddable_id"`
	Name         string         `json:"name"`
	Email        string         `json:"email"`
	Props        map[string]any `json:"props"`
	UnixMillis   int64          `json:"unix_millis"`
}

// output is what the test reads.
type output struct {
	Published []string          `json:"published"`
	Streamed  []string          `json:"streamed"`
	Duplicate bool              `json:"duplicate"`
	Refusal   refusal           `json:"refusal"`
	States    map[string]string `json:"states"`
}

// refusal is how a bad event was refused.
type refusal struct {
	Code    string   `json:"code"`
	Reason  string   `json:"reason"`
	Fields  []string `json:"fields"`
	Reasons []string `json:"reasons"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var in input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		return fmt.Errorf("read stdin: %w", err)
	}
	conn, err := grpc.NewClient(in.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client of %s: %w", in.Address, err)
	}
	defer conn.Close()
	client := eventsv1.NewEventsServiceClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	out := output{States: map[string]string{}}
	half := len(in.Events) / 2
	if err := publish(ctx, client, in.Events[:half], &out); err != nil {
		return err
	}
	if err := stream(ctx, client, in.Events[half:], &out); err != nil {
		return err
	}
	if out.Refusal, err = refuse(ctx, client, in.Events[0]); err != nil {
		return err
	}
	for _, event := range in.Events {
		if out.States[event.ID], err = awaitDelivered(ctx, client, event.ID); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// publish sends each event in a call of its own, the first one twice.
func publish(ctx context.Context, client eventsv1.EventsServiceClient, events []event, out *output) error {
	for index, event := range append(events[:len(events):len(events)], events[0]) {
		message, err := event.message()
		if err != nil {
			return err
		}
		response, err := client.PublishEvent(ctx, &eventsv1.PublishEventRequest{Event: message})
		if err != nil {
			return fmt.Errorf("publish %s: %w", event.ID, err)
		}
		if index == len(events) {
			out.Duplicate = response.GetStatus().GetDuplicate()
		} else {
			out.Published = append(out.Published, response.GetStatus().GetEventId())
		}
	}
	return nil
}

// stream sends the events in one stream and reads until each is acknowledged.
func stream(ctx context.Context, client eventsv1.EventsServiceClient, events []event, out *output) error {
	calls, err := client.StreamEvents(ctx)
	if err != nil {
		return fmt.Errorf("open stream: %w", err)
	}
	for index, event := range events {
		message, err := event.message()
		if err != nil {
			return err
		}
		if err := calls.Send(&eventsv1.StreamEventsRequest{Sequence: int64(index), Event: message}); err != nil {
			return fmt.Errorf("send %s: %w", event.ID, err)
		}
	}
	if err := calls.CloseSend(); err != nil {
		return fmt.Errorf("close stream: %w", err)
	}
	for {
		answer, err := calls.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read stream: %w", err)
		}
		for _, result := range answer.GetResults() {
			taken := result.GetResult().GetStatus()
			if want := events[result.GetSequence()].ID; taken.GetEventId() != want {
				return fmt.Errorf("result %d is of %q, not %q", result.GetSequence(), taken.GetEventId(), want)
			}
			out.Streamed = append(out.Streamed, taken.GetEventId())
		}
	}
}

// refuse sends an event with two mistakes and tells how it was refused.
func refuse(ctx context.Context, client eventsv1.EventsServiceClient, good event) (refusal, error) {
	message, err := good.message()
	if err != nil {
		return refusal{}, err
	}
	message.EventId, message.Name, message.EmbeddableId = "", "Not Snake", ""
	_, err = client.PublishEvent(ctx, &eventsv1.PublishEventRequest{Event: message})
	if err == nil {
		return refusal{}, errors.New("a bad event was taken")
	}
	said := status.Convert(err)
	found := refusal{Code: said.Code().String()}
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			found.Reason = detail.GetReason()
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				found.Fields = append(found.Fields, violation.GetField())
				found.Reasons = append(found.Reasons, violation.GetReason())
			}
		}
	}
	return found, nil
}

// awaitDelivered asks for the event until it is delivered.
func awaitDelivered(ctx context.Context, client eventsv1.EventsServiceClient, id string) (string, error) {
	for {
		response, err := client.GetEvent(ctx, &eventsv1.GetEventRequest{EventId: id})
		if err != nil {
			return "", fmt.Errorf("get %s: %w", id, err)
		}
		if state := response.GetStatus().GetState(); state == eventsv1.State_STATE_DELIVERED {
			return state.String(), nil
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// message is the event as the contract has it, its properties as a structure.
func (event event) message() (*eventsv1.Event, error) {
	props, err := structpb.NewStruct(event.Props)
	if err != nil {
		return nil, fmt.Errorf("properties of %s: %w", event.ID, err)
	}
	return &eventsv1.Event{
		EventId:      event.ID,
		EmbeddableId: event.EmbeddableID,
		Name:         event.Name,
		Timestamp:    timestamppb.New(time.UnixMilli(event.UnixMillis)),
		Identifier: &eventsv1.Identifier{
			Key:   "email",
			Value: &eventsv1.Identifier_StringValue{StringValue: event.Email},
		},
		Properties: &eventsv1.Event_Props{Props: props},
	}, nil
}
