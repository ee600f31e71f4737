import { expect, test } from 'vitest';
import { paravisorBuild } from './paravisor-build.ts';

test('paravisorBuild: 48 bytes, the same each time', () => {
  const build = paravisorBuild();
  expect(build.length).toBe(48);
  expect(paravisorBuild()).toEqual(build);
});
