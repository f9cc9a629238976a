"""What a worker tells about itself, in the shapes of SGLang 0.5.23."""

import time
from typing import Any

from workflows.simulator.core.engine.worker import Worker

_EMBEDDING = {
    "family": "none",
    "task": "none",
    "execution": "none",
    "attention": "none",
    "pooling": "model_defined",
    "normalize": False,
    "postprocessor": "none",
    "tokenizer_special_tokens": "model_default",
    "supports_dimensions": False,
    "supports_token_embeddings": False,
    "supports_multimodal": False,
    "requires_embedding_flag": False,
    "auto_enable_embedding": False,
    "bcg_eligibility": "disabled",
    "safe_disable_kv_cache": False,
    "safe_disable_radix_cache": False,
    "safe_disable_chunked_prefill": False,
    "enabled": False,
    "matryoshka_dimensions": [],
    "bcg": {
        "prefill_backend": "disabled",
        "enabled": False,
        "capture_token_budget": 256,
        "capture_batch_sizes": [4, 8, 16, 32, 64, 128, 256],
    },
    "cache": {"kv_cache_disabled": False, "radix_cache_disabled": False, "chunked_prefill_disabled": False},
}


def model_info(worker: Worker) -> dict[str, Any]:
    flags, config = worker.flags, worker.model.config
    return {
        "model_path": flags.model_path,
        "served_model_name": flags.served_model_name,
        "tokenizer_path": flags.model_path,
        "is_generation": True,
        "preferred_sampling_params": None,
        "weight_version": "default",
        "load_format": "auto",
        "reasoning_parser": flags.reasoning_parser,
        "tool_call_parser": flags.tool_call_parser,
        "disaggregation_mode": flags.mode,
        "has_image_understanding": False,
        "has_audio_understanding": False,
        "model_type": config.get("model_type", "qwen3"),
        "architectures": config.get("architectures", ["Qwen3ForCausalLM"]),
        "embedding": _EMBEDDING,
    }


def server_info(worker: Worker) -> dict[str, Any]:
    """The fields that have a meaning here; the real one has some 550."""
    flags = worker.flags
    return {
        "model_path": flags.model_path,
        "tokenizer_path": flags.model_path,
        "context_length": flags.context_length,
        "json_model_override_args": flags.model_override,
        "dtype": "bfloat16" if flags.dtype == "auto" else flags.dtype,
        "kv_cache_dtype": flags.kv_cache_dtype,
        "chunked_prefill_size": 8192,
        "page_size": flags.page_size,
        "tp_size": flags.tp_size,
        "pp_size": 1,
        "dp_size": 1,
        "load_balance_method": "follow_bootstrap_room" if flags.mode == "prefill" else "round_robin",
        "host": "127.0.0.1",
        "port": flags.port,
        "served_model_name": flags.served_model_name,
        "weight_version": "default",
        "chat_template": flags.chat_template,
        "reasoning_parser": flags.reasoning_parser,
        "tool_call_parser": flags.tool_call_parser,
        "enable_metrics": flags.metrics,
        "disaggregation_mode": flags.mode,
        "disaggregation_transfer_backend": flags.backend,
        "disaggregation_bootstrap_port": flags.bootstrap_port,
        "disaggregation_ib_device": flags.rdma_device,
        "disaggregation_decode_enable_radix_cache": False,
        "disaggregation_decode_allocation_policy": "early",
        "enable_pd_role_switch": False,
        "launch_command": flags.launch_command,
        "status": "ready" if worker.status == "ready" else "starting",
        "max_total_num_tokens": flags.max_total_tokens,
        "max_req_input_len": worker.context_length - 6,
        "internal_states": [{"tp_size": flags.tp_size, "world_size": flags.tp_size}],
        "version": worker.version,
        "frontend": "python",
    }


def models(worker: Worker) -> dict[str, Any]:
    name = worker.flags.served_model_name
    card = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "sglang", "root": name}
    return {"object": "list", "data": [{**card, "parent": None, "max_model_len": worker.context_length}]}


def loads(worker: Worker) -> dict[str, Any]:
    now, flags = time.time(), worker.flags
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(now))
    queues = dict.fromkeys(
        ("prefill_bootstrap", "prefill_inflight", "decode_prealloc", "decode_transfer", "decode_retracted"), 0
    )
    load = {
        "timestamp": now,
        "dp_rank": 0,
        "num_running_reqs": 0,
        "num_waiting_reqs": 0,
        "num_waiting_uncached_tokens": 0,
        "num_used_tokens": 0,
        "num_total_tokens": 0,
        "num_active_tokens": 0,
        "num_prealloc_ready_tokens": 0,
        "max_total_num_tokens": flags.max_total_tokens,
        "max_running_requests": 64,
        "token_usage": 0.0,
        "gen_throughput": 0.0,
        "cache_hit_rate": 0.0,
        "utilization": 0.0,
        "total_prefill_uncached_tokens": 0,
        "total_prefill_busy_us": 0,
        "decode_moments": None,
        "memory": {"weight_gb": 0.0, "kv_cache_gb": 0.0, "graph_gb": 0.0, "token_capacity": flags.max_total_tokens},
        "disaggregation": {
            "mode": flags.mode,
            **{f"{name}_queue_reqs": count for name, count in queues.items()},
            "kv_transfer_speed_gb_s": 0.0,
            "kv_transfer_latency_ms": 0.0,
        },
        "queues": {"waiting": 0, "grammar": 0, "paused": 0, "retracted": 0, "prealloc_ready": 0},
    }
    return {"timestamp": stamp, "version": worker.version, "accelerator": None, "num_accelerators": 1, "loads": [load]}


def weights(worker: Worker) -> dict[str, Any]:
    """A checksum over every tensor; ranks differ only in their number."""
    size = worker.flags.tp_size
    ranks = [
        {
            "checksums": dict(worker.model.checksums),
            "per_gpu_checksum": worker.weights,
            "parallelism_info": [
                {
                    "role": "target",
                    "tp_rank": rank,
                    "tp_size": size,
                    "dp_rank": 0,
                    "dp_size": 1,
                    "pp_rank": 0,
                    "pp_size": 1,
                    "rank": rank,
                    "size": size,
                }
            ],
        }
        for rank in range(size)
    ]
    return {"success": True, "message": "Success.", "ranks": ranks, "per_engine_checksum": worker.weights}
