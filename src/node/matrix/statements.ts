/**
 * The statements of the kernel's Documentation/virt/hyperv/coco.rst, paragraph by paragraph, in our words. A statement says
 * where it applies; checks.ts has its check. One without a check is `not-shown`, with the reason here: the list of those is
 * NOT_SHOWN, and nothing else may end so.
 */
import type { ConfigurationName } from '../../machine/facts.ts';

export interface Statement {
  readonly id: string;
  /** Heading of coco.rst and the number of its paragraph (lists count as one paragraph for each item). */
  readonly where: string;
  readonly sentence: string;
  readonly configurations: readonly ConfigurationName[];
}

const COCO: readonly ConfigurationName[] = ['snp', 'snp-paravisor', 'tdx', 'tdx-paravisor'];
const ENLIGHTENED: readonly ConfigurationName[] = ['snp', 'tdx'];
const PARAVISOR: readonly ConfigurationName[] = ['snp-paravisor', 'tdx-paravisor'];
const SNP: readonly ConfigurationName[] = ['snp', 'snp-paravisor'];
const ALL: readonly ConfigurationName[] = ['plain', ...COCO];

const statement = (
  id: string,
  where: string,
  configurations: readonly ConfigurationName[],
  sentence: string,
): Statement => ({ id, where, sentence, configurations });

export const STATEMENTS: readonly Statement[] = [
  // Confidential Computing VMs
  statement(
    'data-protected',
    'intro 1',
    COCO,
    'the host reads nothing of the guest but what the guest shared, and changes nothing unnoticed',
  ),
  statement(
    'cooperation',
    'intro 2-5',
    ALL,
    'a CoCo guest runs where processor, host and kernel support it: the kernel reports the isolation it found',
  ),
  statement(
    'processor-matches',
    'intro 6-8',
    COCO,
    'SEV-SNP needs an AMD processor and TDX an Intel one: any other pairing is refused',
  ),
  statement('no-lesser-encryption', 'intro 7', SNP, 'SME, SEV and SEV-ES alone are never offered'),
  statement(
    'kind-fixed',
    'intro 9',
    ALL,
    'a VM stays what it was created as: neither its host nor a snapshot turns it into another kind',
  ),
  // Operational modes
  statement(
    'mode-fixed',
    'modes 1',
    COCO,
    'the mode is chosen at creation: a snapshot keeps it, and the host changes neither SEV_FEATURES nor ATTRIBUTES',
  ),
  statement(
    'enlightened-manages',
    'modes 2',
    ENLIGHTENED,
    'fully enlightened: the guest itself validates or accepts its memory',
  ),
  statement(
    'paravisor-provides',
    'modes 3',
    PARAVISOR,
    'paravisor: a layer between guest and host does a part of it',
  ),
  statement(
    'spectrum',
    'modes 4',
    PARAVISOR,
    'the modes are points on a spectrum: with every part on and isolation hidden a guest without enlightenments runs',
  ),
  statement(
    'parts-enumerated',
    'modes 4',
    PARAVISOR,
    'Hyper-V enumerates no parts of a paravisor; those of ours stand in a measured page and can be checked against attested evidence',
  ),
  statement('limited-paravisor', 'modes 5', PARAVISOR, 'a limited paravisor gives services such as a vTPM'),
  statement(
    'paravisor-in-guest-domain',
    'modes 6',
    PARAVISOR,
    "the paravisor is in the guest's trust domain: the guest cannot reach into it, and the host cannot either",
  ),
  statement(
    'host-protects-itself',
    'modes 6',
    COCO,
    'the hypervisor protects itself against paravisor and guest: every request gets an answer, malformed ones a refusal',
  ),
  statement(
    'snp-placement',
    'modes 7',
    SNP,
    'SNP: fully enlightened at VMPL0; with a paravisor at VMPL0 the guest is at VMPL2',
  ),
  statement(
    'privileged-operations',
    'modes 7',
    ['snp-paravisor', 'tdx-paravisor'],
    'certain operations need the paravisor: the guest executes none of them itself',
  ),
  statement('vtom', 'modes 7', ['snp-paravisor'], 'with a paravisor an SNP guest runs in vTOM mode'),
  statement(
    'tdx-placement',
    'modes 8',
    ['tdx', 'tdx-paravisor'],
    'TDX: fully enlightened in L1; with a paravisor in L1 the guest is an L2 VM',
  ),
  statement(
    'isolation-leaf',
    'modes 9',
    ALL,
    'the host tells the guest which technology isolates it and whether there is a paravisor',
  ),
  statement('one-image', 'modes 9', ALL, 'one kernel image boots on either architecture in either mode'),
  // Paravisor effects
  statement(
    'memory-set-up',
    'effects 1',
    PARAVISOR,
    'the paravisor runs first and sets all memory up as encrypted',
  ),
  statement(
    'exception-routing',
    'effects 2',
    COCO,
    '#VC and #VE go to the paravisor where there is one, and to the guest where there is none',
  ),
  statement(
    'cpuid-flags',
    'effects 3',
    COCO,
    'the CPUID flags of SEV-SNP and TDX are visible when fully enlightened and filtered by a paravisor',
  ),
  statement(
    'platform-has',
    'effects 3',
    COCO,
    'the kernel knows that its memory is encrypted, also without the CPUID flags',
  ),
  statement(
    'private-mmio',
    'effects 4',
    COCO,
    'the IO-APIC is reached by private references with a paravisor and by shared ones without',
  ),
  statement('private-tpm', 'effects 4', PARAVISOR, 'the TPM is reached by private references'),
  statement(
    'transitions',
    'effects 5',
    COCO,
    'page transitions invoke the paravisor where there is one, and the hardware and the host where there is none',
  ),
  statement(
    'interrupt-mediation',
    'effects 6',
    PARAVISOR,
    'the guest only sees legal interrupts: the paravisor mediates',
  ),
  statement(
    'interrupt-exposure',
    'effects 6',
    ['snp'],
    'fully enlightened, without injection restrictions, the host could inject at any time: the run records every injection',
  ),
  // Hyper-V hypercalls
  statement(
    'hypercalls-direct',
    'hypercalls 1',
    ['plain', ...ENLIGHTENED],
    'without a paravisor hypercalls go straight to the hypervisor',
  ),
  statement(
    'hypercalls-trap',
    'hypercalls 1',
    PARAVISOR,
    'with a paravisor normal hypercalls trap to it first',
  ),
  statement(
    'hypercalls-bypass',
    'hypercalls 1',
    PARAVISOR,
    'a few hypercalls go straight to the hypervisor, such as posting a message',
  ),
  // Guest communication
  statement('shared-accounted', 'communication 1', COCO, 'every shared page has a reason'),
  statement('monitor-pages', 'communication 2', COCO, 'the VMBus monitor pages are shared'),
  statement(
    'synic-pages',
    'communication 3',
    COCO,
    'the SynIC pages are shared unless the paravisor supplies them',
  ),
  statement(
    'hypercall-pages',
    'communication 4',
    COCO,
    'hypercall input and output pages are shared unless there is a paravisor',
  ),
  statement('ring-buffers', 'communication 5', COCO, 'VMBus ring buffers are shared, in both mappings'),
  statement(
    'padding-zeroed',
    'communication 6',
    COCO,
    'what the guest writes for the host has zeros where it has no data',
  ),
  statement(
    'packets-copied',
    'communication 7',
    COCO,
    'ring packets are copied to private memory and checked there',
  ),
  statement('drivers-allowed', 'communication 8', COCO, 'only hardened VMBus drivers load'),
  statement(
    'bounce-buffers',
    'communication 9',
    COCO,
    'disk and network transfers go through shared bounce buffers',
  ),
  statement(
    'pci-by-hypercall',
    'communication 10',
    COCO,
    'virtual PCI configuration is accessed by hypercall',
  ),
  statement('instructions-hidden', 'communication 10', COCO, "the host cannot read the guest's instructions"),
  // load_unaligned_zeropad()
  statement(
    'not-present-window',
    'zeropad 1-3',
    PARAVISOR,
    'pages are marked not present while a transition is in progress',
  ),
  statement(
    'stray-fixed-up',
    'zeropad 2',
    ENLIGHTENED,
    'a stray reference during a transition is fixed up in the #VC or #VE handler',
  ),
];

/** What the checks cannot show yet, and why. */
export const NOT_SHOWN: Readonly<Record<string, string>> = {
  'limited-paravisor': 'there is no vTPM',
  'private-tpm': 'there is no vTPM',
  'ring-buffers': 'the host offers no VMBus devices',
  'packets-copied': 'the host offers no VMBus devices',
  'drivers-allowed': 'the host offers no VMBus devices',
  'bounce-buffers': 'the host offers no VMBus devices',
  'pci-by-hypercall': 'there is no virtual PCI bus',
  'stray-fixed-up': 'no stray reference is forced in the matrix run',
};

const BY_ID = new Map(STATEMENTS.map((entry) => [entry.id, entry]));

export function sentenceOf(id: string): string {
  return BY_ID.get(id)?.sentence ?? id;
}
