//! Gradual shifts that others approve.

use super::*;

const SHIFTS: &str = "/prompts/support/greet/shifts";

fn usual() -> Value {
    json!([{"percent": 10.0}, {"percent": 100.0, "after": "10m"}])
}

impl Team {
    /// Carries out what is due in so many minutes; returns the versions that are live then.
    async fn in_minutes(&self, minutes: i64) -> Vec<u64> {
        let at_us = jiff::Timestamp::now().as_microsecond() + minutes * 60_000_000;
        self.admin.state.registry.run_due_shifts(at_us).await.unwrap();
        let live = self.get(GREET).await.expect(200);
        let arms = live["split"].as_array().unwrap();
        arms.iter().map(|arm| arm["version"].as_u64().unwrap()).collect()
    }

    async fn apply(&self, change: &Value) -> Value {
        self.act(&self.rob, change, "approve", json!({})).await.expect(200);
        self.act(&self.dan, change, "apply", json!({})).await.expect(200)
    }
}

#[tokio::test]
async fn refused_shift_becomes_a_change_that_shifts() {
    let team = Team::new(protected()).await;
    let body = json!({"environment": "production", "to_version": 2, "steps": usual(), "message": "carefully"});
    let error = team
        .post_as(&team.dan, SHIFTS, body)
        .await
        .refused(403, "approval_required");
    let ready = error["details"]["change"].clone();
    let change = team.post_as(&team.dan, "/changes", ready).await.expect(201);
    let item = &change["deployments"][0];
    assert_eq!(
        item["split"],
        json!([{"variant": "control", "version": 2, "weight": 100.0}])
    );
    let weights: Vec<&Value> = item["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["split"][0]["weight"])
        .collect();
    assert_eq!(weights, [&json!(90.0), &json!(100.0)]);
    assert_eq!(change["authors"], json!(["ada"]));
    team.act(&team.dan, &change, "apply", json!({}))
        .await
        .refused(403, "approval_required");
    assert_eq!(
        team.in_minutes(60).await,
        [1],
        "nothing moves before it is approved and applied"
    );

    let applied = team.apply(&change).await;
    assert_eq!(applied["state"], "applied");
    let live = team.get(GREET).await.expect(200);
    assert_eq!(
        (&live["split"][1]["weight"], &live["change"]),
        (&json!(10.0), &change["id"])
    );
    assert_eq!(team.admin.state.publisher.generation(), applied["generation"]);
    let shift = team
        .get(&format!(
            "/shifts/{}",
            applied["deployments"][0]["shift"].as_str().unwrap()
        ))
        .await
        .expect(200);
    assert_eq!((&shift["change"], &shift["state"]), (&change["id"], &json!("running")));
    assert_eq!(team.in_minutes(5).await, [1, 2]);
    assert_eq!(team.in_minutes(11).await, [2]);
    let log = team.log(30).await;
    assert!(
        log.contains(&"dan shift.create support/greet@production".to_owned()),
        "{log:?}"
    );
}

#[tokio::test]
async fn approved_shift_goes_on_without_who_applied_it_and_refreshes_on_what_is_live() {
    let team = Team::new(protected()).await;
    let plan = |version: u32| {
        let deployments = json!([{"prompt": "support/greet", "to_version": version, "steps": usual()}]);
        json!({"environment": "production", "deployments": deployments, "message": "carefully"})
    };
    let late = team.post_as(&team.ada, "/changes", plan(3)).await.expect(201);
    let change = team.post_as(&team.ada, "/changes", plan(2)).await.expect(201);
    team.apply(&change).await;
    team.put("/users/dan", json!({"disabled": true})).await.expect(200);
    assert_eq!(team.in_minutes(11).await, [2]);
    let refreshed = team.act(&team.ada, &late, "refresh", json!({})).await.expect(200);
    let first = &refreshed["deployments"][0]["steps"][0]["split"];
    assert_eq!((&first[0]["version"], &first[1]["version"]), (&json!(2), &json!(3)));
}

#[tokio::test]
async fn change_that_says_two_things_or_none_is_refused() {
    let team = Team::new(protected()).await;
    for (goal, why) in [
        (json!({}), "neither a split nor steps nor to_version"),
        (json!({"split": all_on(2), "to_version": 2}), "either a split, or steps"),
        (
            json!({"steps": [{"percent": 5}]}),
            "needs percent if there is to_version",
        ),
        (json!({"to_version": 1}), "version 1 is live already"),
        (
            json!({"to_version": 2, "steps": [{"percent": 50}, {"percent": 20}]}),
            "shares must grow",
        ),
    ] {
        let mut deployment = goal;
        deployment["prompt"] = json!("support/greet");
        let body = json!({"environment": "production", "deployments": [deployment], "message": "m"});
        let error = team
            .post_as(&team.ada, "/changes", body)
            .await
            .refused(400, "invalid_field");
        assert!(error["message"].as_str().unwrap().contains(why), "{error}");
    }
}
