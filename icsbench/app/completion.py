"""Shell completion of overrides, answered by Hydra's own engine."""


def complete_override(incomplete: str) -> list[str]:
    """Completions of one override (``nor`` -> ``norm=``, ``norm=`` -> its options, ``optim.`` -> its keys).

    Hydra offers no public call for this; if a later release renames its method there are no completions, and no error.
    """
    try:
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra._internal.core_plugins.bash_completion import BashCompletion
        from hydra._internal.utils import create_config_search_path

        from icsbench.app.compose import prepare_hydra
        from icsbench.app.folders import CONFIG_DIR

        prepare_hydra()
        loader = ConfigLoaderImpl(create_config_search_path(str(CONFIG_DIR)))
        return BashCompletion(loader)._query("train", incomplete)
    except Exception:
        return []
