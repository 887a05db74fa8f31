import { Tollgate } from '@tollgate/client';

const { TOLLGATE_URL: url, TOLLGATE_TOKEN: token } = process.env;
const [, , name, idempotencyKey] = process.argv;
const tollgate = new Tollgate({ url, getToken: () => token });
try {
  const { success, result, error, repeated } = await tollgate.callTool(name, {}, { idempotencyKey });
  console.log(success ? 'succeeded' : 'failed', repeated ? '(of an earlier call)' : '', result ?? error);
} catch (error) {
  // Refused, and not charged: QUOTA_EXCEEDED, PERMISSION_DENIED, …
  console.error(error.code, error.fields);
  process.exitCode = 1;
} finally {
  tollgate.close();
}
