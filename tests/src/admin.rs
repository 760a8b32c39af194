//! Calls of an operator to the sidecar's admin listener.

use embeddables_proto::admin::v1::admin_service_client::AdminServiceClient;
use embeddables_proto::admin::v1::{
    DeadLetter, GetDeadLetterRequest, HoldLaneRequest, Lane, ListDeadLettersRequest, ListLanesRequest,
    ReplayDeadLettersRequest, ReplayDeadLettersResponse, ResumeLaneRequest,
};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::sidecar::Sidecar;
use crate::wait;

/// What an operator holds to call the sidecar.
pub type Admin = AdminServiceClient<Channel>;

/// Connects to a sidecar's admin listener, at the first call.
///
/// # Panics
/// Where the ready file names none.
pub fn client(sidecar: &Sidecar) -> Admin {
    let address = format!("http://{}", sidecar.ready("admin"));
    let endpoint = Endpoint::from_shared(address).expect("an address and a port");
    AdminServiceClient::new(endpoint.timeout(wait::SOON).connect_lazy())
}

/// Every lane, in order of project.
///
/// # Panics
/// Where the call fails.
pub async fn lanes(sidecar: &Sidecar) -> Vec<Lane> {
    let answer = client(sidecar).list_lanes(ListLanesRequest {}).await;
    answer.expect("lanes can be listed").into_inner().lanes
}

/// The lane of a project.
///
/// # Panics
/// Where there is none.
pub async fn lane(sidecar: &Sidecar, project: &str) -> Lane {
    let mut lanes = lanes(sidecar).await.into_iter();
    let lane = lanes.find(|lane| lane.project_id == project);
    lane.unwrap_or_else(|| panic!("{project} has a lane"))
}

/// Holds a lane.
///
/// # Errors
/// As the call does.
pub async fn hold(sidecar: &Sidecar, project: &str, note: &str) -> Result<Lane, Status> {
    let request = HoldLaneRequest {
        project_id: project.to_owned(),
        note: note.to_owned(),
    };
    let answer = client(sidecar).hold_lane(request).await?.into_inner();
    Ok(answer.lane.expect("an answer shows the lane"))
}

/// Lifts whatever keeps a lane from sending.
///
/// # Errors
/// As the call does.
pub async fn resume(sidecar: &Sidecar, project: &str) -> Result<Lane, Status> {
    let request = ResumeLaneRequest {
        project_id: project.to_owned(),
    };
    let answer = client(sidecar).resume_lane(request).await?.into_inner();
    Ok(answer.lane.expect("an answer shows the lane"))
}

/// All dead letters that a request asks for, page by page.
///
/// # Panics
/// Where the call fails, or a page is larger than asked for.
pub async fn dead_letters(sidecar: &Sidecar, request: ListDeadLettersRequest) -> Vec<DeadLetter> {
    let mut client = client(sidecar);
    let (mut all, mut request) = (Vec::new(), request);
    loop {
        let answer = client.list_dead_letters(request.clone()).await;
        let page = answer.expect("dead letters can be listed").into_inner();
        let most = usize::try_from(request.page_size).expect("a size");
        assert!(most == 0 || page.dead_letters.len() <= most, "{page:?}");
        all.extend(page.dead_letters);
        if page.next_page_token.is_empty() {
            return all;
        }
        request.page_token = page.next_page_token;
    }
}

/// One dead letter of the default project.
///
/// # Errors
/// As the call does.
pub async fn dead_letter(sidecar: &Sidecar, id: &str, include_event: bool) -> Result<DeadLetter, Status> {
    let request = GetDeadLetterRequest {
        event_id: id.to_owned(),
        project_id: String::new(),
        include_event,
    };
    let answer = client(sidecar).get_dead_letter(request).await?.into_inner();
    Ok(answer.dead_letter.expect("an answer shows the dead letter"))
}

/// Replays dead letters of the default project.
///
/// # Errors
/// As the call does.
pub async fn replay(
    sidecar: &Sidecar,
    request: ReplayDeadLettersRequest,
) -> Result<ReplayDeadLettersResponse, Status> {
    let answer = client(sidecar).replay_dead_letters(request).await?;
    Ok(answer.into_inner())
}

/// Replays these by their ids.
///
/// # Errors
/// As the call does.
pub async fn replay_ids(sidecar: &Sidecar, ids: &[&str]) -> Result<ReplayDeadLettersResponse, Status> {
    let request = ReplayDeadLettersRequest {
        event_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..ReplayDeadLettersRequest::default()
    };
    replay(sidecar, request).await
}

/// Ids of dead letters, in order.
///
/// # Panics
/// Where one does not tell its event.
#[track_caller]
pub fn ids(letters: &[DeadLetter]) -> Vec<&str> {
    let id = |letter: &'_ DeadLetter| letter.status.as_ref().map(|status| status.event_id.len());
    assert!(letters.iter().all(|letter| id(letter).is_some()), "{letters:?}");
    letters
        .iter()
        .filter_map(|letter| Some(letter.status.as_ref()?.event_id.as_str()))
        .collect()
}
