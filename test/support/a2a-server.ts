import type { ServerResponse } from 'node:http';
import { AgentCard, Message, Task, TaskArtifactUpdateEvent, TaskState, TaskStatusUpdateEvent } from '@a2a-js/sdk';
import {
  AgentEvent,
  type AgentExecutor,
  DefaultRequestHandler,
  type ExecutionEventBus,
  InMemoryTaskStore,
  JsonRpcTransportHandler,
  type RequestContext,
  ServerCallContext,
} from '@a2a-js/sdk/server';
import { type AgentRequest, AgentServer } from './agent-server.ts';

export interface A2aScript {
  /** Pieces of the one artifact. */
  readonly text: readonly string[];
  /** Last state; default: completed. */
  readonly state?: TaskState;
  /** Waits before the piece with this index until `release` is called. */
  readonly holdAt?: number;
  /** Ends the first stream after this many events. */
  readonly cutAfter?: number;
  readonly streaming?: boolean;
  /** Questions: the task is interrupted by each, in this state, before it continues. */
  readonly asks?: readonly { readonly state: TaskState; readonly text: string }[];
}

/** An A2A agent made of the server of its SDK, over JSON-RPC on loopback. */
export class A2aServer implements AgentExecutor {
  readonly server: AgentServer;
  script: A2aScript = { text: ['Hello.'] };
  cancelled: string[] = [];
  #gate = Promise.withResolvers<void>();
  #streams = 0;
  #rpc: JsonRpcTransportHandler;

  private constructor(server: AgentServer) {
    this.server = server;
    this.#rpc = this.#handler();
    server.serve = (request, response) => this.#serve(request, response);
  }

  static async start(): Promise<A2aServer> {
    return new A2aServer(await AgentServer.start());
  }

  reset(script: A2aScript): void {
    this.script = script;
    this.cancelled = [];
    this.userMessages.length = 0;
    this.#gate = Promise.withResolvers<void>();
    this.#streams = 0;
    this.server.requests.length = 0;
    this.#rpc = this.#handler();
  }

  /** Lets the agent continue after `holdAt`. */
  release(): void {
    this.#gate.resolve();
  }

  /** The JSON-RPC methods that were called, in order. */
  get methods(): readonly string[] {
    return this.server.requests.flatMap(({ body }) => (typeof body.method === 'string' ? [body.method] : []));
  }

  /** Texts of the user's messages, in order. */
  readonly userMessages: string[] = [];

  async execute({ taskId, contextId, userMessage }: RequestContext, bus: ExecutionEventBus): Promise<void> {
    const { text, state = TaskState.TASK_STATE_COMPLETED, holdAt, asks = [] } = this.script;
    this.userMessages.push(JSON.stringify(Message.toJSON(userMessage)));
    const ask = asks[this.userMessages.length - 1];
    if (ask) return this.#ask({ taskId, contextId }, ask, bus);
    const gate = this.#gate.promise;
    const ids = { taskId, contextId };
    const status = (value: TaskState) => ({ state: value });
    bus.publish(
      AgentEvent.task(Task.fromJSON({ id: taskId, contextId, status: status(TaskState.TASK_STATE_SUBMITTED) })),
    );
    bus.publish(
      AgentEvent.statusUpdate(TaskStatusUpdateEvent.fromJSON({ ...ids, status: status(TaskState.TASK_STATE_WORKING) })),
    );
    for (const [at, piece] of text.entries()) {
      if (at === holdAt) await gate;
      const artifact = { artifactId: 'answer', parts: [{ text: piece }] };
      bus.publish(AgentEvent.artifactUpdate(TaskArtifactUpdateEvent.fromJSON({ ...ids, artifact, append: at > 0 })));
    }
    bus.publish(AgentEvent.statusUpdate(TaskStatusUpdateEvent.fromJSON({ ...ids, status: status(state) })));
    bus.finished();
  }

  #ask(
    ids: { readonly taskId: string; readonly contextId: string },
    { state, text }: { readonly state: TaskState; readonly text: string },
    bus: ExecutionEventBus,
  ): void {
    const message = { messageId: `question-${this.userMessages.length}`, role: 'ROLE_AGENT', parts: [{ text }] };
    const status = { state, message };
    bus.publish(AgentEvent.task(Task.fromJSON({ id: ids.taskId, contextId: ids.contextId, status })));
    bus.finished();
  }

  async cancelTask(taskId: string, bus: ExecutionEventBus): Promise<void> {
    this.cancelled.push(taskId);
    bus.finished();
  }

  #handler(): JsonRpcTransportHandler {
    return new JsonRpcTransportHandler(new DefaultRequestHandler(this.#card(), new InMemoryTaskStore(), this));
  }

  #card(): AgentCard {
    const { streaming = true } = this.script;
    return AgentCard.fromJSON({
      name: 'Tester',
      description: 'Answers as scripted.',
      version: '1',
      supportedInterfaces: [{ url: `${this.server.origin}/rpc`, protocolBinding: 'JSONRPC', protocolVersion: '1.0' }],
      capabilities: { streaming, pushNotifications: false },
      defaultInputModes: ['text/plain'],
      defaultOutputModes: ['text/plain'],
      skills: [],
    });
  }

  async #serve({ path, body, headers }: AgentRequest, response: ServerResponse): Promise<void> {
    if (path === '/.well-known/agent-card.json') {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify(AgentCard.toJSON(this.#card())));
      return;
    }
    const context = new ServerCallContext({ requestedVersion: String(headers['a2a-version'] ?? '0.3') });
    const answer = await this.#rpc.handle({ ...body }, context);
    if (!(Symbol.asyncIterator in answer)) {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify(answer));
      return;
    }
    const { cutAfter = Number.POSITIVE_INFINITY } = this.#streams === 0 ? this.script : {};
    this.#streams += 1;
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    let sent = 0;
    const send = (event: unknown) => {
      if (!response.writableEnded) response.write(`data: ${JSON.stringify(event)}\n\n`);
    };
    try {
      for await (const event of answer) {
        // The execution continues after a lost connection, so its events are read to their end.
        if (sent >= cutAfter) response.end();
        sent += 1;
        send(event);
      }
    } catch {
      send({ jsonrpc: '2.0', id: body.id, error: { code: -32004, message: 'unsupported' } });
    }
    response.end();
  }
}
