/** Saves a file that the page made. */
export function download(name: string, type: string, parts: readonly BlobPart[]): void {
  const address = URL.createObjectURL(new Blob([...parts], { type }));
  const link = document.createElement('a');
  link.href = address;
  link.download = name;
  link.click();
  // The download has started when the click returns.
  setTimeout(() => URL.revokeObjectURL(address), 1_000);
}
