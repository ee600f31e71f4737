/**
 * The opcode map of the instruction cases, written from the processor manuals and from nothing else: a slip in the
 * engine's own table cannot hide in this one.
 *
 * A row is `mnemonic operands | encoding | attributes`.
 *
 * Operands follow the manuals' opcode maps, letter then size:
 *   E r/m general, G general in ModRM.reg, R general in ModRM.rm, M memory, Z general in the opcode, B general in VEX.vvvv,
 *   V xmm in ModRM.reg, W xmm/memory, U xmm in ModRM.rm, P mm in ModRM.reg, Q mm/memory, N mm in ModRM.rm,
 *   S segment register in ModRM.reg, I immediate, J relative, O absolute offset.
 *   b 1, w 2, d 4, q 8, t 10, x 16, v operand size 2/4/8, y 4/8, z 2/4 by operand size, or a number of bytes.
 *   Anything in lower case (al, cl, dx, rax, 1, xmm0, st0, sti) is implicit; `sti` is the low bits of the ModRM byte.
 *
 * Encoding: a mandatory prefix (66 F2 F3), W for REX.W, the opcode with its map, +r for a register in it, /r or /digit,
 * `:XX` a fixed byte after it, `V` for VEX with L=0.
 *
 * Attributes:
 *   lock       LOCK is allowed with a memory destination
 *   d64        64-bit operand size by default, 16 with 66
 *   s32 s64    only these operand sizes
 *   int f32 f64 x87 mmx text   what registers and memory hold (default int)
 *   aligned    a 16-byte memory operand must be aligned
 *   rep        a string instruction, run with no prefix, F2 and F3
 *   n=2        weight: that many times the cases of a plain form
 *   nondet     results of which the table of masks says what is compared
 */
const ALU = ['add', 'or', 'adc', 'sbb', 'and', 'sub', 'xor', 'cmp'];
const SHIFTS = ['rol', 'ror', 'rcl', 'rcr', 'shl', 'shr', 'sal', 'sar'];
export const CONDITIONS = [
  'o',
  'no',
  'b',
  'ae',
  'e',
  'ne',
  'be',
  'a',
  's',
  'ns',
  'p',
  'np',
  'l',
  'ge',
  'le',
  'g',
];

const hex = (value: number): string => value.toString(16).toUpperCase().padStart(2, '0');

const INTEGER = `
movsxd Gd,Ed | 63
movsxd Gq,Ed | W 63
movsxd Gw,Ew | 66 63
push Zv | 50+r | d64
pop Zv | 58+r | d64
push Iz | 68 | d64
push Ib | 6A | d64
push Ev | FF /6 | d64
pop Ev | 8F /0 | d64
imul Gv,Ev,Iz | 69
imul Gv,Ev,Ib | 6B
imul Gv,Ev | 0FAF
test Eb,Gb | 84
test Ev,Gv | 85
test al,Ib | A8
test rax,Iz | A9
test Eb,Ib | F6 /0
test Ev,Iz | F7 /0
xchg Eb,Gb | 86 | lock
xchg Ev,Gv | 87 | lock
xchg Zv,rax | 90+r
mov Eb,Gb | 88
mov Ev,Gv | 89
mov Gb,Eb | 8A
mov Gv,Ev | 8B
mov Rv,Sw | 8C
mov Mw,Sw | 8C
lea Gv,M0 | 8D | n=3
mov al,Ob | A0
mov rax,Ov | A1
mov Ob,al | A2
mov Ov,rax | A3
mov Zb,Ib | B0+r
mov Zv,Iv | B8+r
mov Eb,Ib | C6 /0
mov Ev,Iz | C7 /0
nop | 90
pause | F3 90
nop Ev | 0F1F /0
nop Ev | 0F19 /3
endbr64 | F3 0F1E :FA
prefetchnta Mb | 0F18 /0
prefetcht0 Mb | 0F18 /1
prefetcht1 Mb | 0F18 /2
prefetcht2 Mb | 0F18 /3
prefetchw Mb | 0F0D /1
cbw | 66 98
cwde | 98
cdqe | W 98
cwd | 66 99
cdq | 99
cqo | W 99
pushf | 9C | d64
popf | 9D | d64 n=3
sahf | 9E
lahf | 9F
cmc | F5
clc | F8
stc | F9
cld | FC
std | FD
movsb | A4 | rep
movs v | A5 | rep
cmpsb | A6 | rep
cmps v | A7 | rep
stosb | AA | rep
stos v | AB | rep
lodsb | AC | rep
lods v | AD | rep
scasb | AE | rep
scas v | AF | rep
ret Iw | C2 | s64
ret | C3 | s64
enter Iw,Ib | C8 | d64 n=3
leave | C9 | d64
int3 | CC
xlat | D7
loopne Jb | E0
loope Jb | E1
loop Jb | E2
jrcxz Jb | E3
call Jz | E8 | s32
jmp Jz | E9 | s32
jmp Jb | EB
call Ev | FF /2 | s64 d64
jmp Ev | FF /4 | s64 d64
not Eb | F6 /2 | lock
not Ev | F7 /2 | lock
neg Eb | F6 /3 | lock
neg Ev | F7 /3 | lock
mul Eb | F6 /4
mul Ev | F7 /4
imul Eb | F6 /5
imul Ev | F7 /5
div Eb | F6 /6 | n=2
div Ev | F7 /6 | n=2
idiv Eb | F6 /7 | n=2
idiv Ev | F7 /7 | n=2
inc Eb | FE /0 | lock
inc Ev | FF /0 | lock
dec Eb | FE /1 | lock
dec Ev | FF /1 | lock
ud2 | 0F0B
ud1 Gd,Ed | 0FB9
bt Ev,Gv | 0FA3
bts Ev,Gv | 0FAB | lock
btr Ev,Gv | 0FB3 | lock
btc Ev,Gv | 0FBB | lock
bt Ev,Ib | 0FBA /4
bts Ev,Ib | 0FBA /5 | lock
btr Ev,Ib | 0FBA /6 | lock
btc Ev,Ib | 0FBA /7 | lock
shld Ev,Gv,Ib | 0FA4
shld Ev,Gv,cl | 0FA5
shrd Ev,Gv,Ib | 0FAC
shrd Ev,Gv,cl | 0FAD
cmpxchg Eb,Gb | 0FB0 | lock
cmpxchg Ev,Gv | 0FB1 | lock
cmpxchg8b Mq | 0FC7 /1 | lock n=2
cmpxchg16b Mx | W 0FC7 /1 | lock n=2 aligned
xadd Eb,Gb | 0FC0 | lock
xadd Ev,Gv | 0FC1 | lock
movzx Gv,Eb | 0FB6
movzx Gv,Ew | 0FB7
movsx Gv,Eb | 0FBE
movsx Gv,Ew | 0FBF
popcnt Gv,Ev | F3 0FB8
tzcnt Gv,Ev | F3 0FBC
lzcnt Gv,Ev | F3 0FBD
bsf Gv,Ev | 0FBC
bsr Gv,Ev | 0FBD
bswap Zy | 0FC8+r
movnti My,Gy | 0FC3
movbe Gv,Mv | 0F38F0
movbe Mv,Gv | 0F38F1
crc32 Gd,Eb | F2 0F38F0
crc32 Gq,Eb | F2 W 0F38F0
crc32 Gd,Ew | 66 F2 0F38F1
crc32 Gd,Ed | F2 0F38F1
crc32 Gq,Eq | F2 W 0F38F1
adcx Gy,Ey | 66 0F38F6
adox Gy,Ey | F3 0F38F6
andn Gy,By,Ey | V 0F38F2
blsr By,Ey | V 0F38F3 /1
blsmsk By,Ey | V 0F38F3 /2
blsi By,Ey | V 0F38F3 /3
bzhi Gy,Ey,By | V 0F38F5
bextr Gy,Ey,By | V 0F38F7
pdep Gy,By,Ey | V F2 0F38F5
pext Gy,By,Ey | V F3 0F38F5
mulx Gy,By,Ey | V F2 0F38F6
shlx Gy,Ey,By | V 66 0F38F7
sarx Gy,Ey,By | V F3 0F38F7
shrx Gy,Ey,By | V F2 0F38F7
rorx Gy,Ey,Ib | V F2 0F3AF0
cpuid | 0FA2 | nondet
rdtsc | 0F31 | nondet
rdtscp | 0F01 :F9 | nondet
rdrand Rv | 0FC7 /6 | nondet
rdseed Rv | 0FC7 /7 | nondet
rdpid Rq | F3 0FC7 /7 | nondet
xgetbv | 0F01 :D0 | nondet
rdfsbase Ry | F3 0FAE /0
rdgsbase Ry | F3 0FAE /1
wrfsbase Ry | F3 0FAE /2
wrgsbase Ry | F3 0FAE /3
push fs | 0FA0 | d64
push gs | 0FA8 | d64
clflush Mb | 0FAE /7
clflushopt Mb | 66 0FAE /7
clwb Mb | 66 0FAE /6
lfence | 0FAE :E8
mfence | 0FAE :F0
sfence | 0FAE :F8
fxsave M512 | 0FAE /0 | x87 n=2 aligned
fxsave64 M512 | W 0FAE /0 | x87 n=2 aligned
fxrstor M512 | 0FAE /1 | n=3 aligned
fxrstor64 M512 | W 0FAE /1 | n=3 aligned
ldmxcsr Md | 0FAE /2 | n=2
stmxcsr Md | 0FAE /3 | f32
xsave M576 | 0FAE /4 | x87 n=2 aligned
xsave64 M576 | W 0FAE /4 | x87 n=2 aligned
xrstor M576 | 0FAE /5 | n=4 aligned
xrstor64 M576 | W 0FAE /5 | n=4 aligned
xsaveopt M576 | 0FAE /6 | x87 n=2 aligned
xsaveopt64 M576 | W 0FAE /6 | x87 n=2 aligned
xsavec M576 | 0FC7 /4 | x87 n=2 aligned
xsavec64 M576 | W 0FC7 /4 | x87 n=2 aligned
cli | FA
sti | FB
hlt | F4
in al,Ib | E4
in eax,Ib | E5
out Ib,al | E6
out Ib,eax | E7
in al,dx | EC
in eax,dx | ED
out dx,al | EE
out dx,eax | EF
insb | 6C
insd | 6D
outsb | 6E
outsd | 6F
clts | 0F06
invd | 0F08
wbinvd | 0F09
rdmsr | 0F32
wrmsr | 0F30
sysret | 0F07
lgdt Mq | 0F01 /2
lidt Mq | 0F01 /3
lmsw Ew | 0F01 /6
invlpg Mb | 0F01 /7
lldt Ew | 0F00 /2
ltr Ew | 0F00 /3
swapgs | 0F01 :F8
xsetbv | 0F01 :D1
mov Rq,cr0 | 0F20 :C0
mov cr0,Rq | 0F22 :C0
mov Rq,cr2 | 0F20 :D0
mov Rq,cr3 | 0F20 :D8
mov cr3,Rq | 0F22 :D8
mov Rq,cr4 | 0F20 :E0
mov Rq,cr8 | 44 0F20 :C0
mov Rq,dr0 | 0F21 :C0
mov dr7,Rq | 0F23 :F8
clac | 0F01 :CA
stac | 0F01 :CB
rdpkru | 0F01 :EE
wrpkru | 0F01 :EF
invpcid Gq,Mx | 66 0F3882
wbnoinvd | F3 0F09
xsaves M576 | 0FC7 /5 | aligned
xrstors M576 | 0FC7 /3 | aligned
`;

/** Removed in 64-bit mode, or reserved: #UD. */
const INVALID = [
  ...[
    0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x82, 0x9a, 0xce, 0xd4,
    0xd5, 0xd6, 0xea,
  ].map((op) => `ud${hex(op).toLowerCase()} | ${hex(op)} :C0`),
  ...[
    '0F04',
    '0F0A',
    '0F0C',
    '0F24',
    '0F25',
    '0F26',
    '0F27',
    '0F36',
    '0F39',
    '0F3B',
    '0F3C',
    '0F3D',
    '0F3E',
    '0F3F',
    '0FA6',
    '0FA7',
    '0FAA',
    '0FFF',
  ].map((op) => `ud${op.toLowerCase()} | ${op} :C0`),
  ...[
    '8F /1',
    '8F /7',
    'C6 /1',
    'C7 /3',
    'FE /2',
    'FE /7',
    'FF /7',
    '0FBA /0',
    '0FBA /3',
    '0FC7 /0',
    '0FC7 /2',
    '0F71 /0',
    '0F71 /3',
    '0F72 /5',
    '0F73 /1',
  ].map((op) => `ud${op.toLowerCase().replace(' ', '')} Eq | ${op}`),
  ...['lea', 'movntps', 'movnti', 'lddqu', 'movlps'].map(
    (name, i) => `ud-reg-${name} | ${['8D', '0F2B', '0FC3', 'F2 0FF0', '0F13'][i]} :C1`,
  ),
  'ud-cmpxchg8b-reg | 0FC7 :C8',
  'ud-ldmxcsr-reg | 0FAE :D0',
  'ud-movbe-reg | 0F38F0 :C0',
  'ud-d9 | D9 :D1',
  'ud-d9e | D9 :E2',
  'ud-da | DA :E0',
  'ud-db | DB :E5',
  'ud-dd | DD :F0',
  'ud-de | DE :D8',
  'ud-df | DF :F8',
  'ud-psrldq-mm | 0F73 :D8',
  'ud-pslldq-mm | 0F73 :F8',
  'ud-0f3a | 0F3A00 :C0',
  'ud-0f38 | 0F3830 :C0',
  'ud-ptest-mm | 0F3817 :C0',
  'ud-66-movmskps-mem | 0F50 :00',
  'ud-maskmovq-mem | 0FF7 :01',
  'ud-pmovmskb-mem | 0FD7 :01',
  'ud-mov-cr1 | 0F20 :C8',
  'ud-mov-dr8 | 44 0F21 :C0',
  'ud-mov-seg6 | 8C :F0',
  'ud-mov-seg7 | 8E :F8',
  'ud-mov-cs | 8E :C8',
];

const X87_ARITHMETIC = ['fadd', 'fmul', 'fcom', 'fcomp', 'fsub', 'fsubr', 'fdiv', 'fdivr'];

const X87 = [
  ...X87_ARITHMETIC.flatMap((name, i) => [
    `${name} Md | D8 /${i}`,
    `${name} Mq | DC /${i}`,
    `${name} st0,sti | D8 :${hex(0xc0 + i * 8)} | n=2`,
    `${name.replace('f', 'fi')} Md | DA /${i}`,
    `${name.replace('f', 'fi')} Mw | DE /${i}`,
  ]),
  // The destination forms exchange the plain and the reversed operation, and have aliases of the compares.
  ...['fadd', 'fmul', 'fcom2', 'fcomp3', 'fsubr', 'fsub', 'fdivr', 'fdiv'].map(
    (name, i) => `${name} sti,st0 | DC :${hex(0xc0 + i * 8)}`,
  ),
  ...['faddp', 'fmulp', 'fcomp5', '', 'fsubrp', 'fsubp', 'fdivrp', 'fdivp'].flatMap((name, i) =>
    name === '' ? [] : [`${name} sti,st0 | DE :${hex(0xc0 + i * 8)}`],
  ),
  'fcompp | DE :D9',
  'fld Md | D9 /0',
  'fst Md | D9 /2 | n=2',
  'fstp Md | D9 /3 | n=2',
  'fldenv M28 | D9 /4 | n=3',
  'fldenv M14 | 66 D9 /4 | n=2',
  'fnstenv M14 | 66 D9 /6',
  'frstor M94 | 66 DD /4 | n=2',
  'fnsave M94 | 66 DD /6 | n=2',
  'fldcw Mw | D9 /5',
  'fnstenv M28 | D9 /6 | n=2',
  'fnstcw Mw | D9 /7',
  'fld sti | D9 :C0',
  'fxch sti | D9 :C8',
  'fnop | D9 :D0',
  'fstp1 sti | D9 :D8',
  ...['fchs', 'fabs', '', '', 'ftst', 'fxam'].flatMap((name, i) =>
    name === '' ? [] : [`${name} | D9 :${hex(0xe0 + i)}`],
  ),
  ...['fld1', 'fldl2t', 'fldl2e', 'fldpi', 'fldlg2', 'fldln2', 'fldz'].map(
    (name, i) => `${name} | D9 :${hex(0xe8 + i)}`,
  ),
  ...['f2xm1', 'fyl2x', 'fptan', 'fpatan', 'fxtract', 'fprem1', 'fdecstp', 'fincstp'].map(
    (name, i) => `${name} | D9 :${hex(0xf0 + i)} | n=2`,
  ),
  ...['fprem', 'fyl2xp1', 'fsqrt', 'fsincos', 'frndint', 'fscale', 'fsin', 'fcos'].map(
    (name, i) => `${name} | D9 :${hex(0xf8 + i)} | n=2`,
  ),
  ...['fcmovb', 'fcmove', 'fcmovbe', 'fcmovu'].map((name, i) => `${name} st0,sti | DA :${hex(0xc0 + i * 8)}`),
  ...['fcmovnb', 'fcmovne', 'fcmovnbe', 'fcmovnu'].map(
    (name, i) => `${name} st0,sti | DB :${hex(0xc0 + i * 8)}`,
  ),
  'fucompp | DA :E9',
  'fild Md | DB /0',
  'fisttp Md | DB /1 | n=2',
  'fist Md | DB /2 | n=2',
  'fistp Md | DB /3 | n=2',
  'fld Mt | DB /5 | n=2',
  'fstp Mt | DB /7',
  'fnclex | DB :E2',
  'fninit | DB :E3',
  'fneni | DB :E0',
  'fndisi | DB :E1',
  'fnsetpm | DB :E4',
  'fucomi st0,sti | DB :E8',
  'fcomi st0,sti | DB :F0',
  'fld Mq | DD /0',
  'fisttp Mq | DD /1 | n=2',
  'fst Mq | DD /2 | n=2',
  'fstp Mq | DD /3 | n=2',
  'frstor M108 | DD /4 | n=3',
  'fnsave M108 | DD /6 | n=3',
  'fnstsw Mw | DD /7',
  'ffree sti | DD :C0',
  'fxch4 sti | DD :C8',
  'fst sti | DD :D0',
  'fstp sti | DD :D8',
  'fucom sti | DD :E0',
  'fucomp sti | DD :E8',
  'fild Mw | DF /0',
  'fisttp Mw | DF /1 | n=2',
  'fist Mw | DF /2 | n=2',
  'fistp Mw | DF /3 | n=2',
  'fbld Mt | DF /4 | n=2',
  'fild Mq | DF /5',
  'fbstp Mt | DF /6 | n=2',
  'fistp Mq | DF /7 | n=2',
  'ffreep sti | DF :C0',
  'fxch7 sti | DF :C8',
  'fstp8 sti | DF :D0',
  'fstp9 sti | DF :D8',
  'fnstsw ax | DF :E0',
  'fucomip st0,sti | DF :E8',
  'fcomip st0,sti | DF :F0',
  'fwait | 9B',
].map((row) => (row.split('|').length === 3 ? `${row} x87` : `${row} | x87`));

/** Packed integer instructions that exist for mm (no prefix) and xmm (66). */
const MMX_SSE: readonly (readonly [string, string])[] = [
  ['punpcklbw', '60'],
  ['punpcklwd', '61'],
  ['punpckldq', '62'],
  ['packsswb', '63'],
  ['pcmpgtb', '64'],
  ['pcmpgtw', '65'],
  ['pcmpgtd', '66'],
  ['packuswb', '67'],
  ['punpckhbw', '68'],
  ['punpckhwd', '69'],
  ['punpckhdq', '6A'],
  ['packssdw', '6B'],
  ['pcmpeqb', '74'],
  ['pcmpeqw', '75'],
  ['pcmpeqd', '76'],
  ['psrlw', 'D1'],
  ['psrld', 'D2'],
  ['psrlq', 'D3'],
  ['paddq', 'D4'],
  ['pmullw', 'D5'],
  ['psubusb', 'D8'],
  ['psubusw', 'D9'],
  ['pminub', 'DA'],
  ['pand', 'DB'],
  ['paddusb', 'DC'],
  ['paddusw', 'DD'],
  ['pmaxub', 'DE'],
  ['pandn', 'DF'],
  ['pavgb', 'E0'],
  ['psraw', 'E1'],
  ['psrad', 'E2'],
  ['pavgw', 'E3'],
  ['pmulhuw', 'E4'],
  ['pmulhw', 'E5'],
  ['psubsb', 'E8'],
  ['psubsw', 'E9'],
  ['pminsw', 'EA'],
  ['por', 'EB'],
  ['paddsb', 'EC'],
  ['paddsw', 'ED'],
  ['pmaxsw', 'EE'],
  ['pxor', 'EF'],
  ['psllw', 'F1'],
  ['pslld', 'F2'],
  ['psllq', 'F3'],
  ['pmuludq', 'F4'],
  ['pmaddwd', 'F5'],
  ['psadbw', 'F6'],
  ['psubb', 'F8'],
  ['psubw', 'F9'],
  ['psubd', 'FA'],
  ['psubq', 'FB'],
  ['paddb', 'FC'],
  ['paddw', 'FD'],
  ['paddd', 'FE'],
  ['pshufb', '3800'],
  ['phaddw', '3801'],
  ['phaddd', '3802'],
  ['phaddsw', '3803'],
  ['pmaddubsw', '3804'],
  ['phsubw', '3805'],
  ['phsubd', '3806'],
  ['phsubsw', '3807'],
  ['psignb', '3808'],
  ['psignw', '3809'],
  ['psignd', '380A'],
  ['pmulhrsw', '380B'],
  ['pabsb', '381C'],
  ['pabsw', '381D'],
  ['pabsd', '381E'],
];

const MMX_ROWS = MMX_SSE.flatMap(([name, op]) => {
  // The low unpacks of mm read only 32 bits of memory.
  const low = name.startsWith('punpckl') ? 'Qd' : 'Qq';
  return [`${name} Pq,${low} | 0F${op} | mmx`, `${name} Vx,Wx | 66 0F${op} | aligned`];
});

const SHIFT_IMMEDIATE = (
  [
    ['psrlw', '71 /2'],
    ['psraw', '71 /4'],
    ['psllw', '71 /6'],
    ['psrld', '72 /2'],
    ['psrad', '72 /4'],
    ['pslld', '72 /6'],
    ['psrlq', '73 /2'],
    ['psllq', '73 /6'],
  ] as const
).flatMap(([name, op]) => [`${name} Nq,Ib | 0F${op} | mmx`, `${name} Ux,Ib | 66 0F${op}`]);

const MMX_OTHER = `
movd Pq,Ed | 0F6E | mmx
movq Pq,Eq | W 0F6E | mmx
movd Ed,Pq | 0F7E | mmx
movq Eq,Pq | W 0F7E | mmx
movq Pq,Qq | 0F6F | mmx
movq Qq,Pq | 0F7F | mmx
emms | 0F77 | mmx
pshufw Pq,Qq,Ib | 0F70 | mmx
pinsrw Pq,Rd,Ib | 0FC4 | mmx
pinsrw Pq,Mw,Ib | 0FC4 | mmx
pextrw Gd,Nq,Ib | 0FC5 | mmx
pmovmskb Gd,Nq | 0FD7 | mmx
movntq Mq,Pq | 0FE7 | mmx
maskmovq Pq,Nq | 0FF7 | mmx n=2
palignr Pq,Qq,Ib | 0F3A0F | mmx
cvtpi2ps Vx,Qq | 0F2A | mmx
cvttps2pi Pq,Wq | 0F2C | f32 n=2
cvtps2pi Pq,Wq | 0F2D | f32 n=2
cvtpi2pd Vx,Qq | 66 0F2A | mmx
cvttpd2pi Pq,Wx | 66 0F2C | f64 aligned n=2
cvtpd2pi Pq,Wx | 66 0F2D | f64 aligned n=2
movdq2q Pq,Ux | F2 0FD6 | mmx
movq2dq Vx,Nq | F3 0FD6 | mmx
`;

/** Arithmetic in the four types: packed single, packed double, scalar single, scalar double. */
const FLOAT_FOUR = (
  [
    ['sqrt', '51'],
    ['add', '58'],
    ['mul', '59'],
    ['sub', '5C'],
    ['min', '5D'],
    ['div', '5E'],
    ['max', '5F'],
  ] as const
).flatMap(([name, op]) => [
  `${name}ps Vx,Wx | 0F${op} | f32 aligned n=2`,
  `${name}pd Vx,Wx | 66 0F${op} | f64 aligned n=2`,
  `${name}ss Vx,Wd | F3 0F${op} | f32 n=2`,
  `${name}sd Vx,Wq | F2 0F${op} | f64 n=2`,
]);

const SSE = `
movups Vx,Wx | 0F10
movupd Vx,Wx | 66 0F10
movss Vx,Wd | F3 0F10
movsd Vx,Wq | F2 0F10
movups Wx,Vx | 0F11
movupd Wx,Vx | 66 0F11
movss Wd,Vx | F3 0F11
movsd Wq,Vx | F2 0F11
movlps Vx,Mq | 0F12
movhlps Vx,Ux | 0F12
movlpd Vx,Mq | 66 0F12
movsldup Vx,Wx | F3 0F12 | aligned
movddup Vx,Wq | F2 0F12
movlps Mq,Vx | 0F13
movlpd Mq,Vx | 66 0F13
unpcklps Vx,Wx | 0F14 | aligned
unpcklpd Vx,Wx | 66 0F14 | aligned
unpckhps Vx,Wx | 0F15 | aligned
unpckhpd Vx,Wx | 66 0F15 | aligned
movhps Vx,Mq | 0F16
movlhps Vx,Ux | 0F16
movhpd Vx,Mq | 66 0F16
movshdup Vx,Wx | F3 0F16 | aligned
movhps Mq,Vx | 0F17
movhpd Mq,Vx | 66 0F17
movaps Vx,Wx | 0F28 | aligned
movapd Vx,Wx | 66 0F28 | aligned
movaps Wx,Vx | 0F29 | aligned
movapd Wx,Vx | 66 0F29 | aligned
cvtsi2ss Vx,Ed | F3 0F2A | f32 n=2
cvtsi2ss Vx,Eq | F3 W 0F2A | f32 n=2
cvtsi2sd Vx,Ed | F2 0F2A | f64
cvtsi2sd Vx,Eq | F2 W 0F2A | f64 n=2
movntps Mx,Vx | 0F2B | aligned
movntpd Mx,Vx | 66 0F2B | aligned
cvttss2si Gd,Wd | F3 0F2C | f32 n=2
cvttss2si Gq,Wd | F3 W 0F2C | f32 n=2
cvttsd2si Gd,Wq | F2 0F2C | f64 n=2
cvttsd2si Gq,Wq | F2 W 0F2C | f64 n=2
cvtss2si Gd,Wd | F3 0F2D | f32 n=2
cvtss2si Gq,Wd | F3 W 0F2D | f32 n=2
cvtsd2si Gd,Wq | F2 0F2D | f64 n=2
cvtsd2si Gq,Wq | F2 W 0F2D | f64 n=2
ucomiss Vx,Wd | 0F2E | f32 n=2
ucomisd Vx,Wq | 66 0F2E | f64 n=2
comiss Vx,Wd | 0F2F | f32 n=2
comisd Vx,Wq | 66 0F2F | f64 n=2
movmskps Gd,Ux | 0F50
movmskpd Gd,Ux | 66 0F50
rsqrtps Vx,Wx | 0F52 | f32 aligned
rsqrtss Vx,Wd | F3 0F52 | f32
rcpps Vx,Wx | 0F53 | f32 aligned
rcpss Vx,Wd | F3 0F53 | f32
andps Vx,Wx | 0F54 | aligned
andpd Vx,Wx | 66 0F54 | aligned
andnps Vx,Wx | 0F55 | aligned
andnpd Vx,Wx | 66 0F55 | aligned
orps Vx,Wx | 0F56 | aligned
orpd Vx,Wx | 66 0F56 | aligned
xorps Vx,Wx | 0F57 | aligned
xorpd Vx,Wx | 66 0F57 | aligned
cvtps2pd Vx,Wq | 0F5A | f32 n=2
cvtpd2ps Vx,Wx | 66 0F5A | f64 aligned n=2
cvtss2sd Vx,Wd | F3 0F5A | f32 n=2
cvtsd2ss Vx,Wq | F2 0F5A | f64 n=3
cvtdq2ps Vx,Wx | 0F5B | aligned
cvtps2dq Vx,Wx | 66 0F5B | f32 aligned n=2
cvttps2dq Vx,Wx | F3 0F5B | f32 aligned n=2
cvttpd2dq Vx,Wx | 66 0FE6 | f64 aligned n=2
cvtdq2pd Vx,Wq | F3 0FE6
cvtpd2dq Vx,Wx | F2 0FE6 | f64 aligned n=2
punpcklqdq Vx,Wx | 66 0F6C | aligned
punpckhqdq Vx,Wx | 66 0F6D | aligned
movd Vx,Ed | 66 0F6E
movq Vx,Eq | 66 W 0F6E
movd Ed,Vx | 66 0F7E
movq Eq,Vx | 66 W 0F7E
movq Vx,Wq | F3 0F7E
movq Wq,Vx | 66 0FD6
movdqa Vx,Wx | 66 0F6F | aligned
movdqu Vx,Wx | F3 0F6F
movdqa Wx,Vx | 66 0F7F | aligned
movdqu Wx,Vx | F3 0F7F
pshufd Vx,Wx,Ib | 66 0F70 | aligned
pshufhw Vx,Wx,Ib | F3 0F70 | aligned
pshuflw Vx,Wx,Ib | F2 0F70 | aligned
psrldq Ux,Ib | 66 0F73 /3
pslldq Ux,Ib | 66 0F73 /7
haddpd Vx,Wx | 66 0F7C | f64 aligned
haddps Vx,Wx | F2 0F7C | f32 aligned
hsubpd Vx,Wx | 66 0F7D | f64 aligned
hsubps Vx,Wx | F2 0F7D | f32 aligned
addsubpd Vx,Wx | 66 0FD0 | f64 aligned
addsubps Vx,Wx | F2 0FD0 | f32 aligned
cmpps Vx,Wx,Ib | 0FC2 | f32 aligned n=3
cmppd Vx,Wx,Ib | 66 0FC2 | f64 aligned n=3
cmpss Vx,Wd,Ib | F3 0FC2 | f32 n=3
cmpsd Vx,Wq,Ib | F2 0FC2 | f64 n=3
pinsrw Vx,Rd,Ib | 66 0FC4
pinsrw Vx,Mw,Ib | 66 0FC4
pextrw Gd,Ux,Ib | 66 0FC5
shufps Vx,Wx,Ib | 0FC6 | aligned
shufpd Vx,Wx,Ib | 66 0FC6 | aligned
pmovmskb Gd,Ux | 66 0FD7
movntdq Mx,Vx | 66 0FE7 | aligned
lddqu Vx,Mx | F2 0FF0
maskmovdqu Vx,Ux | 66 0FF7 | n=2
pblendvb Vx,Wx,xmm0 | 66 0F3810 | aligned
blendvps Vx,Wx,xmm0 | 66 0F3814 | aligned
blendvpd Vx,Wx,xmm0 | 66 0F3815 | aligned
ptest Vx,Wx | 66 0F3817 | aligned n=2
pmovsxbw Vx,Wq | 66 0F3820
pmovsxbd Vx,Wd | 66 0F3821
pmovsxbq Vx,Ww | 66 0F3822
pmovsxwd Vx,Wq | 66 0F3823
pmovsxwq Vx,Wd | 66 0F3824
pmovsxdq Vx,Wq | 66 0F3825
pmuldq Vx,Wx | 66 0F3828 | aligned
pcmpeqq Vx,Wx | 66 0F3829 | aligned
movntdqa Vx,Mx | 66 0F382A | aligned
packusdw Vx,Wx | 66 0F382B | aligned
pmovzxbw Vx,Wq | 66 0F3830
pmovzxbd Vx,Wd | 66 0F3831
pmovzxbq Vx,Ww | 66 0F3832
pmovzxwd Vx,Wq | 66 0F3833
pmovzxwq Vx,Wd | 66 0F3834
pmovzxdq Vx,Wq | 66 0F3835
pcmpgtq Vx,Wx | 66 0F3837 | aligned
pminsb Vx,Wx | 66 0F3838 | aligned
pminsd Vx,Wx | 66 0F3839 | aligned
pminuw Vx,Wx | 66 0F383A | aligned
pminud Vx,Wx | 66 0F383B | aligned
pmaxsb Vx,Wx | 66 0F383C | aligned
pmaxsd Vx,Wx | 66 0F383D | aligned
pmaxuw Vx,Wx | 66 0F383E | aligned
pmaxud Vx,Wx | 66 0F383F | aligned
pmulld Vx,Wx | 66 0F3840 | aligned
phminposuw Vx,Wx | 66 0F3841 | aligned
aesimc Vx,Wx | 66 0F38DB | aligned
aesenc Vx,Wx | 66 0F38DC | aligned
aesenclast Vx,Wx | 66 0F38DD | aligned
aesdec Vx,Wx | 66 0F38DE | aligned
aesdeclast Vx,Wx | 66 0F38DF | aligned
aeskeygenassist Vx,Wx,Ib | 66 0F3ADF | aligned
pclmulqdq Vx,Wx,Ib | 66 0F3A44 | aligned n=2
roundps Vx,Wx,Ib | 66 0F3A08 | f32 aligned n=3
roundpd Vx,Wx,Ib | 66 0F3A09 | f64 aligned n=3
roundss Vx,Wd,Ib | 66 0F3A0A | f32 n=3
roundsd Vx,Wq,Ib | 66 0F3A0B | f64 n=3
blendps Vx,Wx,Ib | 66 0F3A0C | aligned
blendpd Vx,Wx,Ib | 66 0F3A0D | aligned
pblendw Vx,Wx,Ib | 66 0F3A0E | aligned
palignr Vx,Wx,Ib | 66 0F3A0F | aligned n=2
pextrb Rd,Vx,Ib | 66 0F3A14
pextrb Mb,Vx,Ib | 66 0F3A14
pextrw Rd,Vx,Ib | 66 0F3A15
pextrw Mw,Vx,Ib | 66 0F3A15
pextrd Ed,Vx,Ib | 66 0F3A16
pextrq Eq,Vx,Ib | 66 W 0F3A16
extractps Ed,Vx,Ib | 66 0F3A17
pinsrb Vx,Rd,Ib | 66 0F3A20
pinsrb Vx,Mb,Ib | 66 0F3A20
insertps Vx,Wd,Ib | 66 0F3A21 | n=2
pinsrd Vx,Ed,Ib | 66 0F3A22
pinsrq Vx,Eq,Ib | 66 W 0F3A22
dpps Vx,Wx,Ib | 66 0F3A40 | f32 aligned n=3
dppd Vx,Wx,Ib | 66 0F3A41 | f64 aligned n=3
mpsadbw Vx,Wx,Ib | 66 0F3A42 | aligned n=2
pcmpestrm Vx,Wx,Ib | 66 0F3A60 | text n=8
pcmpestri Vx,Wx,Ib | 66 0F3A61 | text n=8
pcmpistrm Vx,Wx,Ib | 66 0F3A62 | text n=8
pcmpistri Vx,Wx,Ib | 66 0F3A63 | text n=8
`;

const GENERATED = [
  ...ALU.flatMap((name, i) => {
    const lock = name === 'cmp' ? '' : ' | lock';
    const base = i * 8;
    return [
      `${name} Eb,Gb | ${hex(base)}${lock}`,
      `${name} Ev,Gv | ${hex(base + 1)}${lock}`,
      `${name} Gb,Eb | ${hex(base + 2)}`,
      `${name} Gv,Ev | ${hex(base + 3)}`,
      `${name} al,Ib | ${hex(base + 4)}`,
      `${name} rax,Iz | ${hex(base + 5)}`,
      `${name} Eb,Ib | 80 /${i}${lock}`,
      `${name} Ev,Iz | 81 /${i}${lock}`,
      `${name} Ev,Ib | 83 /${i}${lock}`,
    ];
  }),
  ...SHIFTS.flatMap((name, i) => [
    `${name} Eb,Ib | C0 /${i} | n=2`,
    `${name} Ev,Ib | C1 /${i} | n=2`,
    `${name} Eb,1 | D0 /${i}`,
    `${name} Ev,1 | D1 /${i}`,
    `${name} Eb,cl | D2 /${i} | n=2`,
    `${name} Ev,cl | D3 /${i} | n=2`,
  ]),
  ...CONDITIONS.flatMap((condition, i) => [
    `j${condition} Jb | ${hex(0x70 + i)}`,
    `j${condition} Jz | 0F${hex(0x80 + i)} | s32`,
    `set${condition} Eb | 0F${hex(0x90 + i)}`,
    `cmov${condition} Gv,Ev | 0F${hex(0x40 + i)}`,
  ]),
];

const lines = (text: string): string[] =>
  text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');

export const ROWS: readonly string[] = [
  ...GENERATED,
  ...lines(INTEGER),
  ...X87,
  ...MMX_ROWS,
  ...SHIFT_IMMEDIATE,
  ...lines(MMX_OTHER),
  ...FLOAT_FOUR,
  ...lines(SSE),
  ...INVALID,
];
