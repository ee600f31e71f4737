/** Packed decimal of FBLD and FBSTP: 18 digits, the lowest first, and a byte with the sign (Intel SDM vol. 1, 4.7). */
import { CPU } from '../layout.ts';
import { i32, i64, select } from '../wasm/value.ts';
import { FSW, INDEFINITE_MANT, INDEFINITE_SE, flag, result, signOf } from './fpu-values.ts';
import { routine, type Routine } from './library.ts';

const LARGEST = 10n ** 18n - 1n;

export const decimalRoutines: readonly Routine[] = [
  /** The number of 16 digits in `low`, two and a sign in `high`, to CPU.wide. Digits above 9 count as what they are. */
  routine('fpu_from_decimal', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const [cpu, low, high] = [f.p(0), f.p(1), f.p(2)];
    const value = f.local('i64', high.shrU(4).and(15).mul(10).add(high.and(15)).zext());
    const shift = f.local('i64', 64);
    f.loop((again) => {
      shift.set(shift.get.sub(4));
      value.set(value.get.mul(10).add(low.shrU(shift.get).and(15)));
      f.brIf(again, shift.get.ne(0));
    });
    f.call(lib('fpu_from_int'), cpu, value.get);
    f.store('32', cpu, f.load('32', cpu, CPU.wide + 8).or(high.and(0x8000)), CPU.wide + 8);
  }),
  /** Ten bytes at CPU.wide; #IA and the packed indefinite when 18 digits do not suffice. */
  routine('fpu_to_decimal', ['i32', 'i64', 'i32'], [], (f, lib) => {
    const [cpu, mant, se] = [f.p(0), f.p(1), f.p(2)];
    const status = f.let(f.load('32', cpu, CPU.fsw));
    const mode = f.let(f.load('32', cpu, CPU.fcw).shrU(10).and(3));
    const integer = f.callValue(lib('fpu_to_int'), cpu, mant, se, i32(64), mode);
    const magnitude = f.local('i64', select(integer.ltS(0), integer.neg(), integer));
    f.if(magnitude.get.gtU(LARGEST), () => {
      f.store('32', cpu, status, CPU.fsw);
      f.store('32', cpu, i32(0), CPU.floatFlags);
      flag(f, lib, cpu, FSW.IE);
      result(f, cpu, i64(INDEFINITE_MANT), i32(INDEFINITE_SE));
      f.return();
    });
    const low = f.local('i64', 0);
    const shift = f.local('i64', 0);
    f.loop((again) => {
      low.set(low.get.or(magnitude.get.remU(10).shl(shift.get)));
      magnitude.set(magnitude.get.divU(10));
      shift.set(shift.get.add(4));
      f.brIf(again, shift.get.ltU(64));
    });
    const top = f.let(magnitude.get.wrap());
    const high = f.let(top.divU(10).shl(4).or(top.remU(10)));
    result(f, cpu, low.get, high.or(signOf(se).shl(15)));
  }),
];
