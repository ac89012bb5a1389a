"""What server, store and worker cost: a picture through all of them, against the bare denoising loop on the same model.

    python benchmarks/overhead.py [--model lagoon] [--pictures 15] [--steps 20] [--size 128]

Pictures through the server and bare ones take turns in one run, so that whatever else the machine does burdens both.
"Bare" is: encode the prompt, denoise, decode, to pixels, with nobody listening. Through the server it is: HTTP request,
validated and stored for good, worker woken, the same computing with events and previews, PNG encoded, stored and
indexed, "done" heard on the event socket.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
from websockets.sync.client import ClientConnection, connect

ATOLL = [sys.executable, "-c", "from atoll.cli.main import main; main()"]
QUEUES = 3
PROMPT = "a red apple, number {number}"  # another one each time, so that no result is taken from a cache


def main() -> None:
    parser = argparse.ArgumentParser(description="What server, store and worker cost per picture.")
    parser.add_argument("--model", default="lagoon", help="name of a model, or the path of one")
    parser.add_argument("--pictures", type=int, default=15, help="of each kind")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=128, help="pixels a side")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atoll-overhead-") as folder:
        home = Path(folder)
        name = options.model
        if Path(name).exists():
            (home / "models/checkpoints").mkdir(parents=True)
            (home / "models/checkpoints/measured").symlink_to(Path(name).resolve())
            name = "measured"
        measure(home, name, options)


def measure(home: Path, name: str, options: argparse.Namespace) -> None:
    fields = {
        "model": name, "num_inference_steps": options.steps, "guidance_scale": 5.0, "sampler": "euler",
        "scheduler": "normal", "width": options.size, "height": options.size,
    }  # fmt: skip
    started = time.perf_counter()
    command = [*ATOLL, "studio", "--home", str(home), "--port", "0", "--no-browser", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            with httpx.Client(base_url=url, timeout=600, trust_env=False) as client:
                client.get("/api/v1/health").raise_for_status()
                first_answer_s = time.perf_counter() - started
                first_answer_cpu_s = cpu_seconds(psutil.Process(server.pid))
                while client.get("/api/v1/ready").status_code != 200:
                    time.sleep(0.01)
                ready_s = time.perf_counter() - started
                with connect(url.replace("http", "ws", 1) + "api/v1/events", proxy=None) as events:
                    first = through_server(client, events, fields, seed=1)
                    bare = load_bare(name, home, fields)
                    bare(2)  # warm, as the worker is by now
                    served, alone, encoded = [], [], []
                    processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
                    served_cpu_s = alone_cpu_s = 0.0
                    for seed in range(10, 10 + options.pictures):
                        cpu_before = sum(map(cpu_seconds, processes))
                        served.append(through_server(client, events, fields, seed=seed))
                        served_cpu_s += sum(map(cpu_seconds, processes)) - cpu_before
                        cpu_before = time.process_time()
                        took, pixels = bare(seed)
                        alone_cpu_s += time.process_time() - cpu_before
                        alone.append(took)
                        encoded.append(seconds_to_encode(pixels))
                    queued, alone_between = [], []
                    for round_ in range(QUEUES):
                        seeds = range(1000 * (round_ + 1), 1000 * (round_ + 1) + options.pictures)
                        queued.append(queue_of_pictures(client, events, fields, seeds))
                        alone_between.append(statistics.median(bare(seed)[0] for seed in seeds))
                rss_mib = psutil.Process(server.pid).memory_info().rss / 2**20
        finally:
            server.terminate()
    report(first_answer_s, ready_s, first, served, alone, encoded, queued, alone_between, rss_mib, options)
    bare_cpu_ms, served_cpu_ms = (seconds / len(served) * 1000 for seconds in (alone_cpu_s, served_cpu_s))
    print(f"computing per picture, all cores      bare {bare_cpu_ms:.0f} ms, served {served_cpu_ms:.0f} ms")
    print(f"server's computing until first answer  {first_answer_cpu_s:8.2f} s")


def cpu_seconds(process: psutil.Process) -> float:
    """What a process has computed so far: unlike the clock's time, little changed by what else the machine does."""
    times = process.cpu_times()
    return float(times.user + times.system)


def through_server(
    client: httpx.Client, events: ClientConnection, fields: dict[str, Any], *, seed: int
) -> dict[str, float]:
    """Seconds: `whole`, from the request to the news that it is done, and `computing`, the worker's own count."""
    started = time.perf_counter()
    request = {**fields, "seed": seed, "prompt": PROMPT.format(number=seed)}
    job_id = client.post("/api/v1/images", json=request).raise_for_status().json()["job_id"]
    data = wait_for_end(events, {job_id})
    return {"whole": time.perf_counter() - started, "computing": data["seconds"]}


def wait_for_end(events: ClientConnection, job_ids: set[str]) -> dict[str, Any]:
    """The data of the last "done"."""
    while True:
        event = json.loads(events.recv())
        if event["job_id"] in job_ids and event["kind"] in ("done", "failed", "cancelled"):
            if event["kind"] != "done":
                raise SystemExit(f"a picture ended as {event['kind']}: {event['data']}")
            job_ids = job_ids - {event["job_id"]}
            if not job_ids:
                data: dict[str, Any] = event["data"]
                return data


def queue_of_pictures(client: httpx.Client, events: ClientConnection, fields: dict[str, Any], seeds: range) -> float:
    """Seconds per picture when the worker always has a next one: encoding and storing happen beside it.

    Counted from the first picture that was finished after all were asked for, to the last.
    """
    requests = [{**fields, "seed": seed, "prompt": PROMPT.format(number=seed)} for seed in seeds]
    job_ids = {client.post("/api/v1/images", json=request).raise_for_status().json()["job_id"] for request in requests}
    all_asked_for = time.time()
    wait_for_end(events, job_ids)
    jobs = client.get("/api/v1/jobs", params={"limit": len(job_ids)}).raise_for_status().json()
    ends = sorted(job["finished_at"] for job in jobs if job["finished_at"] > all_asked_for)
    if len(ends) < 3:
        raise SystemExit("The pictures are made faster than they can be asked for; give more --steps.")
    return float(ends[-1] - ends[0]) / (len(ends) - 1)


def load_bare(name: str, home: Path, fields: dict[str, Any]) -> Callable[[int], tuple[float, Any]]:
    """seed -> (seconds, pixels) of the engine alone."""
    import torch

    from atoll.diffusion.checkpoint import load_checkpoint
    from atoll.diffusion.sample import sample_latents
    from atoll.diffusion.text import encode_prompt
    from atoll.models.catalogue import ModelCatalogue

    checkpoint = load_checkpoint(ModelCatalogue([home / "models"]).resolve("checkpoints", name))
    negative = [encode_prompt(checkpoint.text_encoder, "")]
    latents = torch.zeros(1, checkpoint.model.latent_channels, fields["height"] // 8, fields["width"] // 8)

    def make(seed: int) -> tuple[float, Any]:
        started = time.perf_counter()
        positive = [encode_prompt(checkpoint.text_encoder, PROMPT.format(number=seed))]
        sampled = sample_latents(
            checkpoint.model,
            positive,
            negative,
            latents,
            seed=seed,
            num_inference_steps=fields["num_inference_steps"],
            guidance_scale=fields["guidance_scale"],
            sampler=fields["sampler"],
            schedule=fields["scheduler"],
        )
        image = checkpoint.vae.decode_latents(sampled).float().clamp(0, 1)
        pixels = (image.movedim(1, -1)[0] * 255).round().byte().cpu().numpy()
        return time.perf_counter() - started, pixels

    return make


def seconds_to_encode(pixels: Any) -> float:
    from atoll.artifacts.png import encode_png

    started = time.perf_counter()
    encode_png(pixels, {"prompt": "x" * 1500, "parameters": "y" * 300})
    return time.perf_counter() - started


def report(
    first_answer_s: float,
    ready_s: float,
    first: dict[str, float],
    served: list[dict[str, float]],
    alone: list[float],
    encoded: list[float],
    queued: list[float],
    alone_between: list[float],
    rss_mib: float,
    options: argparse.Namespace,
) -> None:
    import torch

    png = statistics.median(encoded)
    whole, computing = ([times[kind] for times in served] for kind in ("whole", "computing"))
    rows = [
        ("bare denoising loop", alone),
        ("the worker's computing", computing),
        ("request to done, without PNG encoding", [seconds - png for seconds in whole]),
        ("request to done, with PNG encoding", whole),
    ]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"machine: {platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, {device}, load {load:.1f}")
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(
        f"model {options.model}, {options.size}x{options.size}, {options.steps} steps, {len(served)} pictures of each "
        f"kind in turns; PNG encoding {png * 1000:.1f} ms\n"
    )
    print(f"{'ms per picture':40}{'median':>10}{'fastest':>10}{'more than bare':>16}{'(fastest)':>11}")
    for title, times in rows:
        more = "" if times is alone else f"{_median_difference(times, alone) * 1000:16.1f}"
        least = "" if times is alone else f"{(min(times) - min(alone)) * 1000:11.1f}"
        print(f"{title:40}{statistics.median(times) * 1000:10.1f}{min(times) * 1000:10.1f}{more}{least}")
    more_ms = _median_difference(queued, alone_between) * 1000
    median_ms, fastest_ms = statistics.median(queued) * 1000, min(queued) * 1000
    print(f"{'from a full queue':40}{median_ms:10.1f}{fastest_ms:10.1f}{more_ms:16.1f}")
    print()
    print(f"server start to first HTTP answer     {first_answer_s:8.2f} s")
    print(f"server start to worker ready          {ready_s:8.2f} s")
    print(f"first picture above a warm one        {first['whole'] - statistics.median(whole):8.2f} s")
    print(f"server process                        {rss_mib:8.0f} MiB")


def _median_difference(times: list[float], baseline: list[float]) -> float:
    """Of neighbours in time, so that a slow minute of the machine counts on both sides."""
    return statistics.median(one - other for one, other in zip(times, baseline, strict=True))


if __name__ == "__main__":
    main()
