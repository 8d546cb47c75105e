"""guide_dataset: a Ray dataset of prompts in, the same dataset with answers and their bill out."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from langchain_core.messages import HumanMessage

from langchain_gkt.bulk.chains import ChainLike, pack_chain, settings_of, unpack_chain
from langchain_gkt.bulk.columns import ROW, OutputColumns, output_names
from langchain_gkt.bulk.job import import_ray, start_controller
from langchain_gkt.bulk.options import BulkOptions
from langchain_gkt.bulk.packed_stage import PackedTeacherStage
from langchain_gkt.bulk.packing import check_packable
from langchain_gkt.bulk.processor import (
    EngineAnswers,
    EngineRequest,
    engine_config,
    engine_resources,
    keep_written,
)
from langchain_gkt.bulk.stages import StageSettings
from langchain_gkt.bulk.student_stage import StudentStage
from langchain_gkt.bulk.teacher_stage import TeacherStage
from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.costs import CostTracker
from langchain_gkt.errors import BudgetExceeded
from langchain_gkt.teachers.wrappers import models_of

if TYPE_CHECKING:
    from ray.data import Dataset


def guide_dataset(
    dataset: Dataset,
    chain_or_config: ChainLike,
    *,
    prompt_column: str,
    output_columns: OutputColumns = None,
    **options: Any,
) -> Dataset:
    """Answer every prompt of a Ray dataset, as the chain would one by one.

    Nothing runs until the dataset is consumed, as by ``write_parquet``. An asynchronous stage asks
    the teacher, with many calls in flight. A pool of student actors finishes the answers. A failed
    row has its error in the column ``error``, and the others continue.

    Args:
        dataset: The dataset.
        chain_or_config: A `GuidedKnowledgeTransferChain`, a mapping with its constructor's
            arguments, or a function without arguments that makes it in each actor. Keys that you
            give to the teacher do not travel: put them into the actors' environment or into the
            function.
        prompt_column: The column of prompts, which are texts.
        output_columns: Which of `OUTPUT_COLUMNS` to add: names, or names with new names. None for
            all.
        **options: See `BulkOptions`.

    Returns:
        The dataset with the new columns, not yet computed. Rows may come in another order.

    Raises:
        ImportError: If Ray is not installed.
        TypeError: If an argument is unknown or of the wrong type, or the chain cannot be pickled.
        ValueError: If the dataset lacks the column or has one that would be overwritten, the column
            holds no text, or an option makes no sense.
    """
    ray = import_ray()
    checked = BulkOptions.of(options)
    names = output_names(output_columns)
    if not isinstance(dataset, ray.data.Dataset):
        raise TypeError(
            "dataset must be a ray.data.Dataset, such as ray.data.read_parquet(...), not "
            f"{type(dataset).__name__}"
        )
    _check_columns(dataset, prompt_column, names, checked.id_column)
    packed = pack_chain(chain_or_config)
    asks_teacher = True
    if not callable(chain_or_config):
        chain = unpack_chain(packed)
        _check_price(chain, checked)
        if checked.questions_per_call > 1:
            check_packable(chain)
        asks_teacher = settings_of(chain).asks_teacher
    _warn_if_full(ray, checked)
    settings = StageSettings(
        chain=packed, options=checked, prompt_column=prompt_column, names=names
    )
    controller = start_controller(checked)
    dataset = dataset.repartition(target_num_rows_per_block=checked.rows_per_block, strict=True)
    if checked.id_column is None:
        from ray.data.expressions import monotonically_increasing_id

        dataset = dataset.with_column(ROW, monotonically_increasing_id())
    stage = {"batch_format": "pyarrow", "batch_size": None}
    if asks_teacher:
        dataset = dataset.map_batches(
            PackedTeacherStage if checked.questions_per_call > 1 else TeacherStage,
            fn_constructor_args=(settings, controller),
            compute=ray.data.ActorPoolStrategy(
                size=checked.teacher_workers,
                # So that the last rows of one block do not leave calls unused.
                max_concurrent_calls_per_actor=2
                + math.ceil(checked.calls_per_worker / checked.rows_per_block),
            ),
            num_cpus=0,  # it waits for the network
            **stage,
        )
    if checked.processor is not None:
        return _through_processor(dataset, settings, controller, stage)
    least, most = checked.student_range
    return dataset.map_batches(
        StudentStage,
        fn_constructor_args=(settings, controller),
        compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most),
        num_cpus=checked.student_cpus,
        num_gpus=checked.student_gpus or None,
        **stage,
    )


def _through_processor(
    dataset: Dataset, settings: StageSettings, controller: Any, stage: dict[str, Any]
) -> Dataset:
    from ray.data.llm import build_processor

    processor = build_processor(engine_config(settings.options.processor))
    written = processor(dataset.map(EngineRequest(settings))).map(keep_written)
    return written.map_batches(EngineAnswers(settings, controller), **stage)


def _check_columns(
    dataset: Dataset, prompt_column: str, names: dict[str, str], id_column: str | None
) -> None:
    """Refuse a dataset that cannot be answered, by its schema."""
    schema = dataset.schema()
    if schema is None:  # no rows
        return
    found = dict(zip(schema.names, schema.types, strict=True))
    for argument, column in (("prompt_column", prompt_column), ("id_column", id_column)):
        if column is not None and column not in found:
            raise ValueError(
                f"{argument}={column!r} is no column of the dataset, which has: "
                f"{', '.join(map(repr, found))}"
            )
    if not _may_be_text(found[prompt_column]):
        raise ValueError(
            f"prompt_column={prompt_column!r} holds {found[prompt_column]}, not text; give the "
            "column with the prompts, or convert it to strings"
        )
    for name, column in names.items():
        if column in found:
            raise ValueError(
                f"the dataset has a column {column!r} already; choose another with "
                f"output_columns={{{name!r}: 'another name', ...}}, or drop it"
            )


def _may_be_text(kind: Any) -> bool:
    """Whether a column of a type may hold texts. Types outside Arrow may."""
    import pyarrow

    if isinstance(kind, pyarrow.DictionaryType):
        kind = kind.value_type
    if not isinstance(kind, pyarrow.DataType) or isinstance(kind, pyarrow.ExtensionType):
        return True
    types = pyarrow.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_null(kind))


def _check_price(chain: GuidedKnowledgeTransferChain, options: BulkOptions) -> None:
    """Refuse a budget in money for a teacher without a known price."""
    settings = settings_of(chain)
    if options.budget is None or not options.budget.needs_prices or not settings.asks_teacher:
        return
    tracker = CostTracker(
        teacher_price=options.teacher_price, budget=options.budget, scenario=options.scenario
    )
    try:
        tracker.admit_teacher(
            list(models_of(settings.teacher)),
            [HumanMessage("?")],
            call_id="check",
            compared=False,
            limit=settings.limit,
        )
    except BudgetExceeded as error:
        raise ValueError(f"budget: {error}") from error


def _warn_if_full(ray: Any, options: BulkOptions) -> None:
    """Warn if the students cannot start or leave no CPU. Teachers are paid, and nothing ends."""
    given, found = "student_cpus", ray.cluster_resources()
    wanted = {"CPU": options.student_range[0] * options.student_cpus, "GPU": 0.0}
    if options.processor is not None:
        given, wanted = "placement_group_config", engine_resources(options.processor)
    cpus, gpus = found.get("CPU", 0), found.get("GPU", 0)
    if wanted["CPU"] > cpus - 1:
        warnings.warn(
            f"the students take {wanted['CPU']:g} of the cluster's {cpus:g} CPUs ({given}) and "
            "leave none to read and write; unless it grows, the job will wait for ever. Lower "
            f"students or {given}",
            UserWarning,
            stacklevel=3,
        )
    if wanted["GPU"] > gpus:
        warnings.warn(
            f"the processor takes {wanted['GPU']:g} GPU(s) and the cluster has {gpus:g}; unless "
            "it grows, the job will pay the teacher and wait for ever. For vLLM on CPUs give "
            "placement_group_config={'bundle_per_worker': {'CPU': 1}} to the processor's "
            "configuration",
            UserWarning,
            stacklevel=3,
        )
