"""A minimal chat in the terminal: streaming, greedy, one conversation."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread

from instructrec.models import EMBEDDED, base_of, load_model, load_tokenizer, resolve_model


def chat(adapter: Path | None, model_name_or_path: str | None, max_new_tokens: int) -> None:
    """Read messages until Ctrl-D and stream replies; Ctrl-C stops the reply.

    Raises:
        UserError: model or adapter is not there.
    """
    name = model_name_or_path or (base_of(adapter) if adapter else None) or EMBEDDED
    folder = resolve_model(name)

    from instructrec.runtime import quiet

    quiet()
    from transformers import StoppingCriteria, TextIteratorStreamer

    tokenizer = load_tokenizer(folder, adapter)
    model = load_model(folder, "bfloat16")
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter))
    model.eval()
    print(f"{name}{f' + {adapter}' if adapter else ''}: Ctrl-C stops a reply, Ctrl-D ends")

    stop = Event()

    class Stop(StoppingCriteria):
        def __call__(self, input_ids: object, scores: object, **_: object) -> bool:
            return stop.is_set()

    history: list[dict[str, str]] = []
    while True:
        try:
            message = input("\n> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not message:
            continue
        history.append({"role": "user", "content": message})
        inputs = tokenizer.apply_chat_template(
            history, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(model.device)
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        stop.clear()
        options = {"max_new_tokens": max_new_tokens, "do_sample": False, "stopping_criteria": [Stop()]}
        worker = Thread(target=model.generate, kwargs={**inputs, **options, "streamer": streamer}, daemon=True)
        worker.start()
        reply = ""
        try:
            for piece in streamer:
                print(piece, end="", flush=True)
                reply += piece
        except KeyboardInterrupt:
            stop.set()
            print(" [stopped]", end="")
        worker.join()
        print()
        history.append({"role": "assistant", "content": reply})
