"""Facts that a worker reports about itself: the fields that clients read, in the shapes of SGLang 0.5.23."""

from typing import Any

from workflows.simulator.core.engine.worker import Worker


def model_info(worker: Worker) -> dict[str, Any]:
    return {
        "model_path": worker.flags.model_path,
        "served_model_name": worker.flags.served_model_name,
        "weight_version": "default",
        "disaggregation_mode": worker.flags.mode,
        "model_type": worker.model.config.get("model_type", "qwen3"),
        "architectures": worker.model.config.get("architectures", ["Qwen3ForCausalLM"]),
    }


def server_info(worker: Worker) -> dict[str, Any]:
    """The real one has some 550 fields."""
    flags = worker.flags
    return {
        "model_path": flags.model_path,
        "served_model_name": flags.served_model_name,
        "context_length": flags.context_length,
        "json_model_override_args": flags.model_override,
        "dtype": "bfloat16" if flags.dtype == "auto" else flags.dtype,
        "kv_cache_dtype": flags.kv_cache_dtype,
        "page_size": flags.page_size,
        "tp_size": flags.tp_size,
        "chat_template": flags.chat_template,
        "disaggregation_mode": flags.mode,
        "disaggregation_transfer_backend": flags.backend,
        "disaggregation_bootstrap_port": flags.bootstrap_port,
        "disaggregation_ib_device": flags.rdma_device,
        "launch_command": flags.launch_command,
        "status": "ready" if worker.status == "ready" else "starting",
        "max_total_num_tokens": flags.max_total_tokens,
        "version": worker.version,
    }


def weights(worker: Worker) -> dict[str, Any]:
    """One checksum over every tensor, the same on each rank."""
    ranks = [
        {"checksums": dict(worker.model.checksums), "per_gpu_checksum": worker.weights}
        for _ in range(worker.flags.tp_size)
    ]
    return {"success": True, "message": "Success.", "ranks": ranks, "per_engine_checksum": worker.weights}
