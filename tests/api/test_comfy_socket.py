"""The websocket: who is told what, in which order, and what a client may miss."""

from __future__ import annotations

import json
import struct

from comfy_door import JPEG, ComfyServer, Heard, png, txt2img


def test_a_job_is_told_to_its_client_to_the_end(comfy: ComfyServer) -> None:
    with comfy.socket("/ws?clientId=me") as socket:
        heard = Heard(socket)
        hello = heard.until("status")
        assert hello["data"] == {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "me"}
        prompt_id = comfy.queue(client_id="me")
        assert heard.until("status")["data"] == {"status": {"exec_info": {"queue_remaining": 1}}}
        comfy.worker.run(prompt_id, png(1))
        heard.until_end(prompt_id)
        assert prompt_id in comfy.get("/history")  # written before its client is told
    told = heard.types("progress_state", "status")
    assert told == [
        "execution_start",
        "execution_cached",
        *["executing"] * 7,
        "executed",
        "execution_success",
        "executing",
    ]
    executed = next(message["data"] for message in heard.messages if message["type"] == "executed")
    assert executed["output"] == comfy.history_of(prompt_id)["outputs"]["9"] and executed["node"] == "9"
    left = [message["data"]["status"]["exec_info"]["queue_remaining"] for message in heard.messages
            if message["type"] == "status"]  # fmt: skip
    assert (left[:2], left[-1], len(left)) == ([0, 1], 0, 4)  # the third tells how many are left when it is sent


def test_nobody_else_is_told_of_a_job_but_how_many_are_left(comfy: ComfyServer) -> None:
    with (
        comfy.socket("/ws?clientId=me") as mine,
        comfy.socket("/api/ws?clientId=you") as yours,
    ):
        my_ears, your_ears = Heard(mine), Heard(yours)
        my_ears.until("status")
        your_ears.until("status")
        first, second = comfy.queue(txt2img(1), client_id="me"), comfy.queue(txt2img(2), client_id="you")
        comfy.worker.run(first, png(1))
        comfy.worker.run(second, png(2))
        my_ears.until_end(first)
        your_ears.until_end(second)
    assert {message["data"].get("prompt_id", second) for message in your_ears.messages} == {second}
    assert {message["data"].get("prompt_id", first) for message in my_ears.messages} == {first}
    assert "status" in your_ears.types()


def test_previews_come_in_the_form_that_the_client_understands(comfy: ComfyServer) -> None:
    with (
        comfy.socket("/ws?clientId=plain") as plain,
        comfy.socket("/ws?clientId=rich") as rich,
    ):
        plain_ears, rich_ears = Heard(plain), Heard(rich)
        rich.send_text(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}}))
        flags = rich_ears.until("feature_flags")["data"]
        assert flags["supports_preview_metadata"] is True and flags["max_upload_size"] > 0
        plain_ears.until("status")
        for client, ears in (("plain", plain_ears), ("rich", rich_ears)):
            prompt_id = comfy.queue(client_id=client)
            claim = comfy.worker.claim(prompt_id)
            comfy.worker.enter(claim, "3")
            comfy.worker.step(claim, "3", 1, 2, preview=JPEG)
            ears.until("progress", value=1, max=2, node="3", prompt_id=prompt_id)
            while not ears.binary:
                ears.next()
            comfy.worker.finish(claim)
            ears.until_end(prompt_id)
    assert [struct.unpack(">II", frame[:8]) for frame in plain_ears.binary] == [(1, 1)]
    assert plain_ears.binary[0][8:] == JPEG
    (kind, length) = struct.unpack(">II", rich_ears.binary[0][:8])
    assert kind == 4 and json.loads(rich_ears.binary[0][8 : 8 + length])["prompt_id"] == prompt_id
    assert rich_ears.binary[0][8 + length :] == JPEG


def test_previews_are_kept_from_who_did_not_want_them_or_came_late(comfy: ComfyServer) -> None:
    """Some programs open their socket after they queued and take every binary message for their picture."""
    late = comfy.queue(client_id="late")
    with (
        comfy.socket("/ws?clientId=late") as late_socket,
        comfy.socket("/ws?clientId=none") as none_socket,
    ):
        for ears, client in ((Heard(late_socket), "late"), (Heard(none_socket), "none")):
            ears.until("status")
            prompt_id = late if client == "late" else comfy.queue(
                txt2img(2), client_id=client, extra_data={"preview_method": "none"}
            )  # fmt: skip
            claim = comfy.worker.claim(prompt_id)
            comfy.worker.enter(claim, "3")
            comfy.worker.step(claim, "3", 1, 2, preview=JPEG)
            ears.until("progress")  # the preview, if there were one, would come next
            comfy.worker.finish(claim, comfy.worker.artifact(png(1)))
            ears.until_end(prompt_id)
            assert ears.binary == []


def test_who_comes_back_is_told_what_runs(comfy: ComfyServer) -> None:
    with comfy.socket("/ws?clientId=me") as socket:
        Heard(socket).until("status")
        prompt_id = comfy.queue(client_id="me")
        claim = comfy.worker.claim(prompt_id)
        comfy.worker.enter(claim, "4")
        comfy.worker.enter(claim, "3")
    with comfy.socket("/ws?clientId=me") as socket:
        heard = Heard(socket)
        assert heard.until("executing")["data"] == {"node": "3", "display_node": "3", "prompt_id": prompt_id}
        comfy.worker.finish(claim, comfy.worker.artifact(png(1)))
        heard.until_end(prompt_id)
    assert "executed" in heard.types() and "execution_success" in heard.types()


def test_a_second_socket_takes_the_place_of_the_first(comfy: ComfyServer) -> None:
    with comfy.socket("/ws?clientId=me") as first:
        Heard(first).until("status")
        with comfy.socket("/ws?clientId=me") as second:
            heard = Heard(second)
            heard.until("status")
            while first.receive()["type"] != "websocket.close":
                pass
            prompt_id = comfy.queue(client_id="me")
            comfy.worker.run(prompt_id)
            heard.until_end(prompt_id)


def test_a_client_without_an_id_is_given_one(comfy: ComfyServer) -> None:
    with comfy.socket("/comfy/ws") as socket:
        sid = Heard(socket).until("status")["data"]["sid"]
        assert len(sid) == 32
        socket.send_text("not JSON")
        socket.send_text("[]")
        socket.send_bytes(b"\0")
        prompt_id = comfy.queue(client_id=sid)
        comfy.worker.run(prompt_id)
        Heard(socket).until_end(prompt_id)


def test_a_failure_and_an_interruption_are_told_and_end(comfy: ComfyServer) -> None:
    with comfy.socket("/ws?clientId=me") as socket:
        heard = Heard(socket)
        heard.until("status")
        broken = comfy.queue(txt2img(1), client_id="me")
        claim = comfy.worker.claim(broken)
        comfy.worker.enter(claim, "3")
        comfy.worker.fail(claim, "unexpected", "It broke.", "3")
        error = heard.until("execution_error")["data"]
        assert (error["prompt_id"], error["node_type"], error["exception_message"]) == (broken, "KSampler", "It broke.")
        heard.until_end(broken)
        stopped = comfy.queue(txt2img(2), client_id="me")
        claim = comfy.worker.claim(stopped)
        comfy.worker.enter(claim, "3")
        comfy.client.post("/interrupt", json={"prompt_id": stopped})
        comfy.worker.stop(claim)
        assert heard.until("execution_interrupted")["data"]["node_id"] == "3"
        heard.until_end(stopped)
    assert "execution_success" not in heard.types()
