/**
 * Instruction variants that are in line in the interpreter's switch, most frequent first by a profile of kernel boots
 * and shell commands. The list only decides speed. `name encoding size form`, as interpreter.ts names them.
 */
export const HOT_FORMS: readonly string[] = [];
