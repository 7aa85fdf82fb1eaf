/** A question before something that can hurt a guest. The answer that changes nothing comes first, and so has the focus. */
import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';

export interface Question {
  readonly title: string;
  readonly body: ComponentChildren;
  /** The text of the button that confirms. */
  readonly go: string;
  readonly onGo: () => void;
}

export function Confirm({ question, onClose }: { question: Question | undefined; onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (question !== undefined) dialog.current?.showModal();
  }, [question]);
  if (question === undefined) return null;
  const go = () => {
    dialog.current?.close();
    question.onGo();
  };
  return (
    <dialog ref={dialog} class="confirm" onClose={onClose} aria-labelledby="confirm-title">
      <h2 id="confirm-title" class="question">
        {question.title}
      </h2>
      {question.body}
      <div class="buttons">
        <button type="button" onClick={() => dialog.current?.close()}>
          Leave it
        </button>
        <button type="button" class="danger" onClick={go}>
          {question.go}
        </button>
      </div>
    </dialog>
  );
}
