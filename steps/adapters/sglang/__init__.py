"""SGLang workers and routers."""
