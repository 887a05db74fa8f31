import type { ComponentChildren } from 'preact';
import { useRef, useState } from 'preact/hooks';
import { canWrite } from '../session/session.ts';
import { Failure } from './state.tsx';
import { report } from './toasts.tsx';

interface ActionProps {
  /** Text of the button. */
  readonly label: string;
  readonly kind?: 'danger' | 'primary';
  readonly small?: boolean;
  /** What the action does, and to what. */
  readonly title: string;
  readonly consequence: ComponentChildren;
  /** Fields of the form, if the action needs input. */
  readonly fields?: ComponentChildren;
  /** Text of the confirmation; by default that of the button. */
  readonly confirm?: string;
  /** @returns what has happened, shown to the operator */
  readonly run: (form: FormData) => Promise<string>;
  /** After the action has succeeded. */
  readonly onDone?: () => void;
}

/** A button for an admin action: it asks for a confirmation, shows a failure in place and reports the effect. */
export function Action({ label, kind, small, title, consequence, fields, confirm, run, onDone }: ActionProps) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [state, setState] = useState<{ pending: boolean; error?: unknown }>({ pending: false });
  const close = () => dialog.current?.close();
  const open = () => {
    setState({ pending: false });
    dialog.current?.showModal();
  };
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    setState({ pending: true });
    try {
      const effect = await run(new FormData(event.currentTarget as HTMLFormElement));
      setState({ pending: false });
      close();
      report(effect);
      onDone?.();
    } catch (error) {
      setState({ pending: false, error });
    }
  };
  return (
    <>
      <WriteButton label={label} kind={kind} small={small} onClick={open} />
      <dialog class="dialog" ref={dialog} aria-label={title}>
        <form onSubmit={submit}>
          <h2>{title}</h2>
          <div class="muted">{consequence}</div>
          {fields}
          {state.error !== undefined && <Failure error={state.error} />}
          <div class="dialog-actions">
            <button type="button" class="button" onClick={close}>
              Keep as it is
            </button>
            <button type="submit" class="button" data-kind={kind ?? 'primary'} disabled={state.pending}>
              {state.pending ? 'Working …' : (confirm ?? label)}
            </button>
          </div>
        </form>
      </dialog>
    </>
  );
}

interface WriteButtonProps {
  readonly label: string;
  readonly kind?: string | undefined;
  readonly small?: boolean | undefined;
  readonly onClick: () => void;
}

/** A button of an operator with the scope `admin`. Others see it, and why they cannot use it. */
export function WriteButton({ label, kind, small, onClick }: WriteButtonProps) {
  const allowed = canWrite.value;
  return (
    <button
      type="button"
      class="button"
      data-kind={kind}
      data-size={small ? 'small' : undefined}
      aria-disabled={!allowed}
      title={allowed ? undefined : 'Your account may only read. Changes need the scope admin.'}
      onClick={() => allowed && onClick()}
    >
      {label}
    </button>
  );
}
