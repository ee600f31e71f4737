/** Zeros in frames, without touching those that are zero already: nobody has to provide memory for them. */
import { routine, type Routine } from '../../x86/runtime/library.ts';
import { i32, i64 } from '../../x86/wasm/value.ts';

const STEP = 64;

/** Parameters: host address and length, both multiples of a page. */
export const clearFrames: Routine = routine('clear_frames', ['i32', 'i32'], [], (f) => {
  const at = f.local('i32', f.p(0));
  const end = f.let(f.p(0).add(f.p(1)));
  f.loop((again) => {
    f.if(at.get.ltU(end), () => {
      const any = f.local('i64', i64(0));
      for (let offset = 0; offset < STEP; offset += 8) any.set(any.get.or(f.load('64', at.get, offset)));
      f.if(any.get.ne(0), () => f.memoryFill(at.get, i32(0), i32(STEP)));
      at.set(at.get.add(STEP));
      f.br(again);
    });
  });
});
